"""Where rules capture: what is half closed stays proxied, and what a pod writes by itself is not believed."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Iterator

import pytest

from ambient.datapath import nft
from ambient.datapath.rules import removal
from tests.support.agent_lab import AgentLab, agent_lab, eventually, namespace, pod, settled_world
from tests.support.rules import is_proxied, remembered_s, untouched
from tests.support.stand_in import App


@pytest.fixture(scope="module")
def mesh() -> Iterator[AgentLab]:
    """Agent and ztunnel run, both pods are in the mesh."""
    with settled_world(f"amb-rpl-{os.getpid()}") as world, agent_lab(world, AMBIENT_CAPTURE="nftables") as lab:
        lab.agent()
        lab.ztunnel()
        pods = (pod("pod", ["10.213.1.2", "fd00:213:1::2"]), pod("other", ["10.213.2.2", "fd00:213:2::2"]))
        lab.settled(lab.put(namespace("shop", "ambient"), *pods))
        yield lab


def test_what_a_pod_writes_into_a_namespace_of_its_own_is_not_believed(mesh: AgentLab) -> None:
    app = App(mesh.world, mesh.world.pod, 4)
    listing = nft.listing(mesh.world.pod.netns)
    assert listing is not None
    mesh.processes[0].end(signal.SIGKILL)
    flags = re.search(r'comment "row (\d+) ', listing)
    assert flags is not None
    with subprocess.Popen(("unshare", "--net", "sleep", "600")) as own:
        try:
            node = os.stat("/proc/self/ns/net").st_ino
            eventually(lambda: os.stat(f"/proc/{own.pid}/ns/net").st_ino != node, "a namespace of somebody's own")
            theirs = os.open(f"/proc/{own.pid}/ns/net", os.O_RDONLY)
            for planted in (
                listing.replace(flags[0], 'comment "row 0 '),  # whoever believes it lets the pod go
                listing.replace(flags[0] + "0 0 ", 'comment "row 1 9 9 '),
                re.sub(r"ambient (\S+) \S+\"", r'ambient \1 node"', listing, count=1),
            ):
                assert planted != listing
                nft.put(theirs, removal() + planted)
                agent = mesh.agent()
                agent.wait_for("in the mesh (as before)", times=2)
                with mesh.connect(mesh.world.outside, mesh.world.pod, app.address.port) as client:
                    assert is_proxied(client)
                assert nft.listing(mesh.world.pod.netns) == listing
                agent.end(signal.SIGKILL)
            os.close(theirs)
            mesh.agent()
        finally:
            own.kill()
            app.close()


def test_what_is_half_closed_is_remembered_as_proxied_for_days(mesh: AgentLab) -> None:
    assert remembered_s(mesh, mesh.world.pod) == {"432000"}
    mesh.settled(mesh.put(namespace("shop")))
    eventually(lambda: untouched(mesh, mesh.world.pod), "the pod is released")
    eventually(lambda: remembered_s(mesh, mesh.world.pod) == {"60", "120", "30"}, "and remembers as before")
