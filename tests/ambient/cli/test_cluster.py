"""A mesh in a cluster from the command line: whom it asks, through what, and what it says when that does not work."""

from __future__ import annotations

import asyncio
import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from ambient.cli.cluster import ClusterReach
from ambient.errors import Refused, Unavailable
from ambient.kube.api.access import ApiAccess, FixedCredentials, Identity
from ambient.kube.api.client import ApiClient
from tests.support.kube_api import Answer, status_body
from tests.support.kube_forward import ForwardingApi

ZTUNNEL_PORT = 15000


class _Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(f"{self.server.server_name} {self.command} {self.path}\nmore\n".encode())

    do_POST = do_GET

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def _page(name: str) -> Iterator[int]:
    """A part's own page, on a port of its own; it says its name and what it was asked."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Page)
    server.server_name = name
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _pod(
    app: str, name: str, node: str, *, ready: bool = True, created: str = "2026-01-01T00:00:00Z", **more: Any
) -> Any:
    metadata = {
        "name": name,
        "namespace": "ambient-system",
        "labels": {"app": app},
        "creationTimestamp": created,
        **more,
    }
    conditions = [{"type": "Ready", "status": str(ready)}]
    return {
        **{"apiVersion": "v1", "kind": "Pod", "metadata": metadata | more, "spec": {"nodeName": node}},
        "status": {"phase": "Running", "conditions": conditions},
    }


@contextmanager
def _cluster() -> Iterator[tuple[ForwardingApi, ClusterReach]]:
    """An API server in a thread of its own, and the command line's view of it."""
    api, loop = ForwardingApi(), asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    asyncio.run_coroutine_threadsafe(api.__aenter__(), loop).result()
    reach = ClusterReach(ApiClient(ApiAccess(api.url, FixedCredentials(Identity()))))
    try:
        yield api, reach
    finally:
        reach.close()
        asyncio.run_coroutine_threadsafe(api.__aexit__(None, None, None), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def test_each_part_is_asked_on_its_own_node() -> None:
    with _cluster() as (api, reach), _page("z1") as z1, _page("z2") as z2, _page("a2") as a2:
        api.put(_pod("ztunnel", "z-1", "n1"))
        api.put(_pod("ztunnel", "z-2", "n2"))
        api.put(_pod("ambient-agent", "a-2", "n2"))
        api.put(_pod("something-else", "x", "n3"))
        for name, port, local in (("z-1", 15000, z1), ("z-2", 15000, z2), ("z-2", 15021, z2), ("a-2", 15099, a2)):
            api.ports["ambient-system", name, port] = local
        assert reach.nodes() == ["n1", "n2"]
        assert reach.ztunnel("n1", "/config_dump").text.splitlines()[0] == "z1 GET /config_dump"
        assert reach.ztunnel("n2", "/healthz/ready", 15021).text.splitlines()[0] == "z2 GET /healthz/ready"
        assert reach.agent("n2", "/pods").text.splitlines()[0] == "a2 GET /pods"
        assert reach.cut("n2", "shop/web").text.splitlines()[0] == "a2 POST /cut?pod=shop%2Fweb"
        assert list(reach.lines("n1", "/flows")) == [b"z1 GET /flows\n", b"more\n"]
        with pytest.raises(Unavailable, match="it has no such pod"):
            reach.agent("n1", "/pods")
        with pytest.raises(Refused, match="the mesh is on n1, n2"):
            reach.ztunnel("n3", "/")


def test_of_two_pods_on_a_node_the_one_that_is_ready_is_asked_then_the_newer() -> None:
    with _cluster() as (api, reach), _page("new") as new:
        api.put(_pod("ztunnel", "old", "n1", day=1))
        api.put(_pod("ztunnel", "new", "n1", day=2))
        api.put(_pod("ztunnel", "newest", "n1", day=3, ready=False))
        api.put(_pod("ztunnel", "going", "n1", day=4, deletionTimestamp="2026-01-05T00:00:00Z"))
        api.ports["ambient-system", "new", ZTUNNEL_PORT] = new
        assert reach.ztunnel("n1", "/").text.startswith("new GET")


def test_every_replica_of_the_control_plane_is_asked() -> None:
    with _cluster() as (api, reach), _page("c1") as c1, _page("c2") as c2:
        api.put(_pod("ztunnel", "z", "n1"))
        for name, local in (("c-1", c1), ("c-2", c2)):
            api.put(_pod("ambient-control", name, "n1"))
            api.ports["ambient-system", name, 15014] = local
        assert sorted(answer.text.split()[0] for answer in reach.controls("/sync")) == ["c1", "c2"]


def test_without_a_control_plane_of_ours_it_says_which_label_it_looked_for() -> None:
    with _cluster() as (api, reach):
        api.put(_pod("ztunnel", "z", "n1"))
        with pytest.raises(Unavailable, match="no pod has the label app=ambient-control"):
            reach.controls("/ready")


def test_a_cluster_without_a_mesh_says_how_to_get_one() -> None:
    with _cluster() as (api, reach):
        api.put(_pod("web", "web", "n1"))
        with pytest.raises(Refused, match=r"no mesh: cluster .*`ambient install`"):
            reach.nodes()


def test_a_port_where_nobody_listens_is_told_with_the_nodes_own_words() -> None:
    with _cluster() as (api, reach):
        api.put(_pod("ztunnel", "z", "n1"))
        with pytest.raises(Unavailable, match="port 15000: failed to connect: connection refused"):
            reach.ztunnel("n1", "/")


def test_who_may_not_forward_ports_is_told_which_permission_is_missing() -> None:
    with _cluster() as (api, reach):
        api.put(_pod("ztunnel", "z", "n1"))
        api.allowed = False
        with pytest.raises(Refused, match="permission to create pods/portforward"):
            reach.ztunnel("n1", "/")


def test_who_may_list_pods_of_the_meshs_namespace_only_needs_no_more() -> None:
    forbidden = Answer(403, status_body(403, "Forbidden", "pods is forbidden"))
    with _cluster() as (api, reach):
        api.put(_pod("ztunnel", "z", "n1"))
        api.say("/api/v1/pods", forbidden)
        assert reach.nodes() == ["n1"]
    with _cluster() as (api, reach):
        api.say("/api/v1/pods", forbidden)
        api.say("/api/v1/namespaces/ambient-system/pods", forbidden)
        with pytest.raises(Refused, match="pods is forbidden"):
            reach.nodes()


def test_a_server_that_does_not_speak_the_protocol_is_told_so() -> None:
    with _cluster() as (api, reach):
        api.put(_pod("ztunnel", "z", "n1"))
        api.speaks = "other"
        with pytest.raises(Unavailable, match=r"does not speak v4\.channel\.k8s\.io"):
            reach.ztunnel("n1", "/")


def test_no_cluster_there_is_unavailable() -> None:
    reach = ClusterReach(ApiClient(ApiAccess("http://127.0.0.1:1", FixedCredentials(Identity()))))
    with pytest.raises(Unavailable, match="the Kubernetes API cannot be reached"):
        reach.nodes()
    reach.close()
