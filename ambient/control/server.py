"""The control plane's process: settings in, every part made and connected here, run until a signal.

gRPC (TLS) for discovery and certificates, HTTP for readiness, metrics and synchronisation. It keeps no state of its
own: objects, CA and status are files (or, later, the Kubernetes API), so it may die and come back at any time.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import socket
import uuid
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from dataclasses import replace
from http import HTTPStatus
from typing import Any, Final

import grpc
import grpc.aio

from ambient.control import join
from ambient.control.certificates import Certificates
from ambient.control.derive import Derivation, Derived
from ambient.control.derive_world import DeriveSettings
from ambient.control.discovery import Discovery
from ambient.control.enforcement import Enforcement
from ambient.control.gatekeeper import Admission
from ambient.control.gateway_class import OwnClasses
from ambient.control.gateway_evidence import CONCERNED, wanted
from ambient.control.gateway_objects import objects_of
from ambient.control.join import Joins
from ambient.control.join_rpc import JoinService
from ambient.control.join_store import open_store
from ambient.control.key_fetch import fetch_keys, trusting
from ambient.control.key_sets import KeySets
from ambient.control.kube_metrics import SourceCollector
from ambient.control.mesh_file import MeshFile
from ambient.control.metrics import ControlMetrics
from ambient.control.reconcile import WRITER, Reconciler
from ambient.control.refusals import RefusalEvents
from ambient.control.settings import ControlSettings, read_control_settings
from ambient.control.sync import sync_page, syncz_page
from ambient.control.system_roots import system_roots
from ambient.control.trust import Trust
from ambient.control.upkeep import Upkeep
from ambient.control.waypoint_metrics import WaypointCollector
from ambient.control.waypoints import Waypoints
from ambient.errors import MeshError, Unavailable
from ambient.http import HttpServer, Page
from ambient.kube.api.lease import Seat
from ambient.kube.api.source import ApiSource, Beside
from ambient.kube.mesh_config import MeshConfig
from ambient.kube.objects import Records
from ambient.kube.source import open_source
from ambient.log import set_up_logging
from ambient.waypoint.deploy import CLASS
from ambient.xds.catalogue import Catalogue

GRACE_S: Final = 1.0
_OPTIONS: Final = (
    # Two control planes on one port would each serve half of the clients.
    ("grpc.so_reuseport", 0),
    ("grpc.max_receive_message_length", 64 << 20),
    ("grpc.max_send_message_length", 200 << 20),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    # Clients ping an idle stream every 10 to 30 s; gRPC's default calls that abuse.
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    ("grpc.http2.max_ping_strikes", 0),
    ("grpc.max_concurrent_streams", 100),
    ("grpc.server_handshake_timeout_ms", 10_000),
)

_log = logging.getLogger("ambient.control")


class ControlPlane:
    """All parts of one control plane. `start`, then `run` until cancelled, then `stop`."""

    def __init__(self, settings: ControlSettings, environment: Mapping[str, str] = os.environ) -> None:
        """`environment`: where to look for the Kubernetes API, if objects come from there."""
        self._settings = settings
        self.metrics = ControlMetrics()
        self.trust = Trust(settings, environment, self.metrics)
        self._store = open_store(settings.objects, environment)
        self._joins = Joins(
            self._store,
            lambda: self.trust.members.records,
            join.Mesh(settings.cluster, settings.trust_domain, settings.network, settings.cluster_domain),
            grace_s=settings.join_grace_s,
        )
        self.catalogue = Catalogue()
        trusted = trusting(settings.keys_roots)
        self.keys = KeySets(lambda url: fetch_keys(url, trusted), refresh_s=settings.keys_refresh_s)
        self.waypoints = Waypoints(
            (settings.trust_domain, *sorted(settings.trust_domain_aliases - {settings.trust_domain})),
            settings.root_namespace,
            settings.cluster_domain,
            self.keys,
            counting=settings.rate_limits,
            roots=system_roots(settings.egress_roots),
            ingress_classes=settings.ingress_classes,
        )
        self.keys.changed = self._keys_changed
        self._mesh = MeshFile(settings.mesh_config) if settings.mesh_config is not None else None
        if self._mesh is not None:
            self._mesh.changed = self._mesh_changed
        self.discovery = Discovery(
            self.catalogue,
            self.trust.gate,
            self.metrics,
            most_streams=settings.most_streams,
            stream_age_s=settings.stream_age_s,
            patience_s=settings.patience_s,
            waypoints=self.waypoints,
        )
        self.certificates = Certificates(
            self.trust.gate,
            self.trust.issuer,
            self.metrics,
            trust_domain=settings.trust_domain,
            node_accounts=settings.node_accounts | join.NODE_ACCOUNTS,
            longest_ttl_s=settings.longest_ttl_s,
            patience_s=settings.news_patience_s,
            refused=self.trust.identity_refused,
        )
        beside = Beside(lambda records: wanted(records, settings.ingress_classes, settings.root_namespace), CONCERNED)
        self._source = open_source(settings.objects, environment, seat=_seat(settings), beside=beside)
        self.reconciler = Reconciler(
            derivation(settings),
            self.catalogue,
            self.discovery,
            self.certificates,
            self._source.status(WRITER),
            self.metrics,
            self.waypoints,
        )
        self.waypoints.say = self.reconciler.say
        self.metrics.add(WaypointCollector(self.waypoints))
        self.trust.leading = self._source.leading
        self.enforcement: Enforcement | None = None
        self._beside: list[Callable[[], Coroutine[Any, Any, None]]] = [self.waypoints.proxies.run]
        if isinstance(self._source, ApiSource):
            self.metrics.add(SourceCollector(self._source))
            self.enforcement = self.reconciler.enforcement = Enforcement(
                lambda: [(client.caller.node, client.stream) for client in self.discovery.streams],
                self._source.leading,
                self.reconciler.say,
                namespace=settings.namespace,
                replica=settings.replica,
                port=lambda: self.http_port,
            )
            self.reconciler.listeners.append(self.enforcement.hear)
            self._keep_gateways(self._source, self.enforcement)
            if self.trust.events is not None:
                refusals = RefusalEvents(self.trust.events.say, self._source.leading)
                self.reconciler.listeners.append(refusals.hear)
        if self.trust.bundles is not None:
            self.reconciler.listeners.append(self.trust.bundles.hear)
            self.metrics.bundles(self.trust.bundles)
        self.reconciler.listeners.append(self.trust.members.hear)
        listen = settings.webhook_listen
        self.admission = (
            Admission(settings, listen, self.trust, self._source.leading, self.metrics) if listen is not None else None
        )
        if self.admission is not None:
            self.reconciler.listeners.append(self.admission.hear)
        self._http = HttpServer(
            {
                "/ready": self._ready,
                "/metrics": lambda: Page(self.metrics.render(), "text/plain; version=0.0.4; charset=utf-8"),
                "/sync": lambda: _json(
                    sync_page(
                        self.reconciler.observed,
                        self.reconciler.writers,
                        self.discovery.clients,
                        self.waypoints.summary,
                    )
                ),
                "/debug/acceptance": lambda: _json(self.enforcement.page() if self.enforcement is not None else {}),
                "/debug/waypoints": lambda: _json(self.waypoints.proxies.page()),
                "/debug/syncz": lambda: _json(syncz_page(settings.cluster, self.discovery.clients)),
            }
        )
        self._grpc: grpc.aio.Server | None = None
        self.xds_port = 0
        self.http_port = 0

    def _keep_gateways(self, source: ApiSource, enforcement: Enforcement) -> None:
        """What waypoints and gateways stand for, on a cluster."""
        self.waypoints.evidence.unread = source.named.trouble
        self.waypoints.proxies.leading = source.leading
        self.waypoints.proxies.peers = lambda: enforcement.peers
        settings = self._settings
        classes = ({CLASS} if settings.waypoint_image else set()) | (
            settings.gateway_classes if settings.gateway_image else set()
        )
        if not classes:
            return
        upkeep = Upkeep(source.client, objects_of(settings), source.leading, self.reconciler.say)
        own_classes = OwnClasses(source.client, classes, source.leading)
        self.waypoints.obstacle = upkeep.trouble
        self.reconciler.listeners += [upkeep.hear, own_classes.hear]
        self._beside += [upkeep.run, own_classes.run]

    async def start(self) -> None:
        """Listen; raises Unavailable when an address cannot be had. The ports are in `xds_port` and `http_port`.

        Readiness and metrics are told from the beginning, while there may be nothing to serve the rest with.
        """
        self.http_port = await self._http.start(self._settings.http_listen)
        try:
            await self.trust.start()
            await self._listen()
        except BaseException:
            await self._http.stop()
            raise

    async def _listen(self) -> None:
        server = grpc.aio.server(options=_OPTIONS, maximum_concurrent_rpcs=self._settings.most_streams + 256)
        joining = JoinService(self._joins)
        server.add_generic_rpc_handlers((self.discovery.handler(), self.certificates.handler(), joining.handler()))
        listen = self._settings.xds_listen
        try:
            self.xds_port = server.add_secure_port(str(listen), self.trust.tls.credentials())
        except RuntimeError:
            self.xds_port = 0
        if not self.xds_port:
            raise Unavailable("cannot listen", str(listen), "is the address of this machine, and free?")
        self._grpc = server
        await server.start()
        if self.admission is not None:
            await self.admission.start()
        http = replace(self._settings.http_listen, port=self.http_port)
        _log.info("discovery and CA on %s, HTTP on %s", replace(listen, port=self.xds_port), http)

    async def run(self) -> None:
        """Until cancelled, or until a part fails."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._source.run())
            group.create_task(self.reconciler.run(self._source))
            group.create_task(self.trust.run())
            if self.enforcement is not None:
                group.create_task(self.enforcement.run())
            group.create_task(self._joins.run())
            group.create_task(self.keys.run())
            if self._mesh is not None:
                group.create_task(self._mesh.run())
            for run in self._beside:
                group.create_task(run())
            if self.admission is not None:
                group.create_task(self.admission.run())

    async def stop(self) -> None:
        """End open streams after a short grace; clients reconnect to whoever comes next."""
        await self._http.stop()
        if self.admission is not None:
            await self.admission.stop()
        self.discovery.stop()
        if self._grpc is not None:
            await self._grpc.stop(GRACE_S)
        await self._store.close()
        await self.trust.stop()

    def _keys_changed(self, urls: frozenset[str]) -> None:
        if self.waypoints.renew(urls):
            self.discovery.wake_proxies()

    def _mesh_changed(self, mesh: MeshConfig) -> None:
        if self.waypoints.configure(mesh):
            self.discovery.wake_proxies()

    def _ready(self) -> Page:
        if self._grpc is None:
            why = self.trust.trouble or "starting"
            return Page(f"{why}\n".encode(), status=HTTPStatus.SERVICE_UNAVAILABLE)
        if self.reconciler.observed < 0 or self.reconciler.failure:
            why = self.reconciler.failure or self._source.waiting() or "objects were not read yet"
            return Page(f"{why}\n".encode(), status=HTTPStatus.SERVICE_UNAVAILABLE)
        return Page(b"ok\n")


def derivation(settings: ControlSettings) -> Callable[[Records], Derived]:
    """Derives each snapshot from the one before, with this mesh's settings."""
    wanted = DeriveSettings(
        cluster_id=settings.cluster,
        trust_domain=settings.trust_domain,
        root_namespace=settings.root_namespace,
        domain=settings.cluster_domain,
        network=settings.network,
        dry_run_policies=settings.dry_run_policies,
        trust_domain_aliases=settings.trust_domain_aliases,
        discovery_selectors=settings.discovery_selectors,
        ingress_classes=settings.ingress_classes,
    )
    return Derivation(wanted).update


def _seat(settings: ControlSettings) -> Seat:
    """The lease of these replicas. A name that is never used again, so that nobody takes a predecessor for us."""
    identity = f"{settings.replica or socket.gethostname()}_{uuid.uuid4()}"
    return Seat(namespace=settings.namespace, name=settings.lease, identity=identity)


def _json(value: Any) -> Page:
    return Page(json.dumps(value, indent=1).encode() + b"\n", "application/json")


async def serve(settings: ControlSettings) -> None:
    """Run a control plane until SIGTERM or SIGINT; raises MeshError when it cannot start."""
    loop = asyncio.get_running_loop()
    plane = ControlPlane(settings)
    task = asyncio.current_task()
    for number in (signal.SIGTERM, signal.SIGINT):
        if task is not None:
            loop.add_signal_handler(number, task.cancel)
    try:
        with suppress(asyncio.CancelledError):
            await plane.start()
            await plane.run()
    finally:
        await plane.stop()
    _log.info("stopped")


def main() -> int:
    """Entry point of `python -m ambient.control`; gives the exit status."""
    try:
        settings = read_control_settings(os.environ)
        set_up_logging(settings.log_format, settings.log_level)
        asyncio.run(serve(settings))
    except (MeshError, OSError) as error:
        logging.basicConfig()
        _log.critical("%s", error)
        return 1
    return 0
