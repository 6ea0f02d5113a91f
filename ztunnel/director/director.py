"""The middle of the director: passes what each part says to the parts it concerns. No sockets or files of its own."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Collection, Iterable
from functools import partial
from pathlib import Path
from typing import Final

from ambient.model.identity import Identity
from ambient.model.mesh import Changes, Mesh, address_name
from ambient.model.waypoints import needs_of
from ambient.model.workload import NetworkMode, TunnelProtocol
from ambient.xds.messages import ztunnel_node
from ambient.xds.renewal import Priority
from ambient.xds.subscribe import StreamState
from ambient.zds.codec import AddWorkload
from ztunnel.admin.flows import FlowRing
from ztunnel.admin.stats import Stats
from ztunnel.config import Config
from ztunnel.director.answers import Answers
from ztunnel.director.certificates import Certificates, Sign
from ztunnel.director.crl import Keys, revocation_lists
from ztunnel.director.custody import Custody, Secret
from ztunnel.director.discovery import Discovery, server_settings
from ztunnel.director.greeting import settings_for
from ztunnel.director.handover import Estate, Heir
from ztunnel.director.itself import OWN_NETNS, own_pod
from ztunnel.director.local import local_records
from ztunnel.director.pods import Pods, Rules
from ztunnel.director.policies import PodInfo, Site, identity_of, pod_policy, workload_of
from ztunnel.director.questions import Question, Questions
from ztunnel.director.reports import Reports
from ztunnel.director.shares import Shares
from ztunnel.director.snapshot import SnapshotFile
from ztunnel.director.tally import Tally
from ztunnel.director.tracing import Tracing
from ztunnel.director.workers import Crew, Worker
from ztunnel.inpod import listeners
from ztunnel.inpod.listeners import Listeners
from ztunnel.ipc import messages as ipc
from ztunnel.ipc.authorities import AuthorityAsk

_PEERS: Final = "peers"
"""Who asks for the workloads behind the addresses that connections come from: held to a share like each pod."""
_log = logging.getLogger("director")


class Director:
    """Owner of the crew, listener of the certificates, keeper of the agent's pods."""

    def __init__(
        self,
        config: Config,
        sign: Sign,
        *,
        tracing: Tracing | None = None,
        bind: Callable[[int], Listeners] | None = None,
        adopt: Callable[[list[int]], Listeners] | None = None,
    ) -> None:
        self.config = config
        self.site = Site(config.node, config.cluster_id, config.trust_domain, config.network, config.only_waypoints)
        self.tally = Tally(config.metrics_series)
        self.stats = Stats(self.tally, self._gauges)
        self.flows = FlowRing()
        self.exporter = None
        if tracing is not None:
            # Few have it, and everybody waits for what is imported at the start.
            from ztunnel.director.otlp import Exporter

            self.exporter = Exporter(tracing, self.stats)
        self.crew = Crew(config.director_socket, self)
        self.reports = Reports(self.crew)
        self.shares = Shares(config.workers)
        kept = self.certificates = Certificates(sign, self)
        self.revoked = revocation_lists(config, kept.authorities, self._revoked)
        self.custody = Custody(config.custody_uds, kept.held, kept.offer) if config.custody_uds else None
        node = ztunnel_node(
            config.node,
            pod=config.pod_name or "ztunnel",
            namespace=config.pod_namespace,
            cluster=config.cluster_id,
            ip=config.instance_ip,
            extra=config.metadata,
        )
        local = bool(config.local_xds or config.local_xds_path)
        self.discovery = Discovery(
            node,
            None
            if local
            else server_settings(
                config.xds_address,
                config.xds_root_ca,
                config.auth_token,
                config.alt_xds_hostname,
                config.cluster_id,
                config.xds_headers,
            ),
            SnapshotFile(
                config.state_dir,
                f"{config.cluster_id}/{config.node}",
                Path(config.director_socket).stem.removeprefix("director"),
            ),
            on_change=self._discovery_changed,
            on_state=self._discovery_state,
            on_message=self.stats.discovery_message,
            on_save_failed=self.stats.snapshot_failures.inc,
            on_demand=config.on_demand,
            lax=config.lax,
            local=partial(local_records, config) if local else None,
        )
        mesh = self.discovery.mesh
        self.pods = Pods(
            self.crew,
            Rules(
                bind=bind or partial(listeners.bind, ipv6=config.ipv6, dns=config.dns),
                bind_own=bind or partial(listeners.bind, ipv6=config.ipv6, dns=config.dns, captured=False),
                adopt=adopt or partial(listeners.adopt, ipv6=config.ipv6, dns=config.dns),
                identity=lambda pod: identity_of(mesh, self.site, pod),
                # Part of a first answer is no policy at all: what is not there yet may be what refuses.
                policy=lambda pod: pod_policy(mesh if self._all_known_of(pod) else Mesh(), self.site, pod),
                settled=lambda: self.discovery.settled,
                dns=config.dns,
                row=self.shares.row,
            ),
            started=self._pod_started,
            stopped=self._pod_stopped,
        )
        self.answers = Answers(
            mesh,
            self.site,
            domain=config.cluster_domain,
            registry_only=config.registry_only,
            ipv6=config.ipv6,
            preferred_namespace=config.preferred_namespace,
        )
        self.estate = Estate(config.handover_socket, self.pods.listening, self.certificates.held, self.discovery.save)
        self.log_level = config.log_level
        self._settled = False
        self._every_pod_known = False
        self.questions = Questions(self.answers, self.pods, self._unanswerable)

    # --- node agent (ztunnel.inpod.agent.Keeper)

    async def add(self, pod: AddWorkload, netns: int) -> str:
        """Serve a pod; "" or why not."""
        adding = self.pods.add(PodInfo(pod.uid, pod.name, pod.namespace, pod.service_account), netns)
        error = await adding
        self._reconcile_identities()
        return error

    async def serve_itself(self) -> None:
        """Serve our own pod, if we know who we are."""
        pod = own_pod(self.config)
        if pod is not None:
            error = await self.pods.add(pod, os.open(OWN_NETNS, os.O_RDONLY | os.O_CLOEXEC))
            if error:
                _log.warning("our own pod is not served: %s", error)
            self._reconcile_identities()

    def remove(self, uid: str) -> None:
        self.pods.remove(uid)
        self.answers.gone(uid, self._tell)
        self._reconcile_identities()

    def snapshot_done(self) -> None:
        """Every pod of the node is known: what earlier processes left for others can go."""
        self._every_pod_known = True
        self._reconcile_identities()
        self.certificates.drop_spares()

    async def retry(self) -> Iterable[str]:
        return await self.pods.retry()

    def served(self) -> Iterable[str]:
        return self.pods.served()

    def inherit(self, heir: Heir) -> list[str]:
        """Take over what an earlier ztunnel gave; the uids whose sockets are now ours, too."""
        given, heir.secrets = heir.secrets, {}
        self.certificates.offer(given)
        pods, heir.pods = heir.pods, []
        taken = [message.uid for message, fds in pods if self.pods.worker_gave(None, message, fds)]
        self._reconcile_identities()
        self.questions.again()
        return taken

    # --- workers (ztunnel.director.workers.Owner)

    def worker_joined(self, worker: Worker) -> None:
        """Everything the worker needs, at once: settings, certificates, pods with their sockets and policies."""
        self.stats.worker_starts.inc()
        self.tally.hello(worker.pid)
        self.answers.joined(worker.pid)
        worker.send(settings_for(self.config, self.log_level))
        if self.revoked is not None:
            worker.send(_revocations(self.revoked.keys))
        ledger = self.shares.join(worker.pid)
        if ledger is not None:
            worker.send(ledger, (self.shares.fd,))
        for identity, secret in self.certificates.current():
            worker.send(_certificate(identity, secret), (secret.fd,))
        for identity, why in self.certificates.failures().items():
            worker.send(ipc.CertificateFailed(identity=identity, why=why))
        if worker.claims and self._settled:
            worker.send(ipc.Forget(everything=True))
        self.pods.worker_joined(worker)

    def worker_left(self, worker: Worker) -> None:
        self.tally.gone(worker.pid)
        self.answers.left(worker.pid)
        self.shares.left(worker.pid)
        self.reports.left(worker)
        self.pods.worker_left()
        self.questions.left(worker)

    def worker_said(self, worker: Worker, message: ipc.ToDirector, fds: list[int]) -> None:
        """One message of a worker."""
        match message:
            case ipc.RouteAsk() | ipc.PeerAsk() | ipc.NameAsk() | AuthorityAsk():
                self.questions.ask(worker, message)
            case ipc.Counters():
                self.tally.report(worker.pid, message)
            case ipc.Flows():
                self.flows.add(message.packed, message.count, message.lost)
                if self.exporter is not None:
                    self.exporter.offer(message.packed, message.count)
            case ipc.PodReady():
                self.pods.worker_ready(worker, message)
            case ipc.PodListeners():
                self.pods.worker_gave(worker, message, fds)
                self._reconcile_identities()
                self.questions.again()
                return
            case ipc.Report():
                self.reports.arrived(worker, message)
            case ipc.Drained():
                worker.drained = True
                self.reports.left(worker)
            case ipc.PodGone() | ipc.Hello():
                pass
        for fd in fds:
            os.close(fd)

    # --- certificates (ztunnel.director.certificates.Listener)

    def certificate_ready(self, identity: str, secret: Secret) -> None:
        self.stats.certificates.inc(of="issued")
        if self.revoked is not None:
            self.revoked.authorities_changed()
        for worker in self.crew.everyone():
            worker.send(_certificate(identity, secret), (secret.fd,))
        self._custody_changed(identity)

    def certificate_failed(self, identity: str, why: str) -> None:
        self.stats.certificates.inc(of="failed")
        for worker in self.crew.everyone():
            worker.send(ipc.CertificateFailed(identity=identity, why=why))

    def certificate_gone(self, identity: str) -> None:
        for worker in self.crew.everyone():
            worker.send(ipc.CertificateGone(identity=identity))
        self._custody_changed(identity)

    def _revoked(self, keys: Keys | None) -> None:
        for worker in self.crew.everyone():
            worker.send(_revocations(keys))

    # --- for the admin pages

    def change_log_level(self, level: str) -> None:
        """Ours is changed by the caller; the workers' here."""
        self.log_level = level
        for worker in self.crew.everyone():
            worker.send(ipc.LogLevel(level=level))

    def drain(self, deadline_s: float, passed_on: Collection[str] = ()) -> None:
        """No new connections from here on, another ztunnel accepts those of the pods `passed_on`; workers let open ones
        end for so many seconds."""
        everything = all(uid in passed_on for uid in self.pods.served())
        for worker in self.crew.everyone():
            worker.send(ipc.Drain(deadline_s=deadline_s, handed_over=everything))
        # A drained worker accepts no more: what would still arrive must not wait in a queue that nobody reads.
        self.pods.stop_listening(passed_on)

    # --- inside

    def _all_known_of(self, pod: PodInfo) -> bool:
        """Discovery has told all that the policy of a pod depends on."""
        if not self.config.on_demand:
            return self.discovery.settled
        mesh = self.discovery.mesh
        workload = workload_of(mesh, self.site, pod)
        return self.discovery.settled and (workload is None or not self.discovery.lacks(needs_of(mesh, workload)))

    def _discovery_changed(self, changes: Changes, more: bool) -> None:
        if more:
            self.answers.forget(changes, self._tell)
            return
        if self.discovery.settled and not self._settled:
            self._settled = True
            for worker in self.crew.everyone():
                worker.send(ipc.Forget(everything=True))
        self.pods.discovery_changed()
        self.answers.forget(changes, self._tell)
        self._reconcile_identities()
        self.questions.again()

    def _tell(self, pid: int, message: ipc.ToWorker) -> None:
        for worker in self.crew.everyone():
            if worker.pid == pid:
                worker.send(message)

    def _discovery_state(self, state: StreamState) -> None:
        if state.state == "disconnected":
            self.stats.xds_terminations.inc(of=state.reason)
            level = logging.WARNING if state.retry_in_s > 0.1 else logging.DEBUG
            _log.log(level, "discovery: %s, again in %.2f s", state.why, state.retry_in_s)
        elif state.state == "synced":
            _log.info("discovery is complete")
            self.certificates.hurry()

    def _reconcile_identities(self) -> None:
        """Certificates for every pod here and, ahead of time, for every mesh workload discovery places here."""
        pods = self.pods.identities()
        ahead = {
            str(Identity(one.trust_domain, one.namespace, one.service_account))
            for one in self.discovery.mesh.workloads_on(self.config.node)
            if (one.tunnel_protocol is TunnelProtocol.HBONE or one.native_tunnel)
            and one.network_mode is NetworkMode.STANDARD
        }
        for identity in pods:
            self.certificates.want(identity, Priority.REAL_TIME)
        for identity in ahead - pods:
            self.certificates.want(identity, Priority.WARMUP)
        if self._every_pod_known:
            self.certificates.keep_only(pods | ahead)

    def _unanswerable(self, ask: Question) -> str:
        """Why discovery cannot answer a question yet; "" when it can."""
        if not self._settled:
            return "discovery has not answered yet"
        if isinstance(ask, ipc.PeerAsk):
            lacks = self.discovery.lacks((address_name(self.site.network, ask.ip),), _PEERS)
        else:
            pod = self.pods.get(ask.uid)
            if pod is None:
                return "the pod is not on this node"
            if not self.config.on_demand or isinstance(ask, ipc.NameAsk):
                return ""
            lacks = self.discovery.lacks(self.answers.needs(pod, ask), ask.uid)
        return "discovery has not answered yet" if lacks else ""

    def _pod_started(self) -> None:
        self.stats.proxies_started.inc()

    def _pod_stopped(self, uid: str) -> None:
        self.shares.forget(uid)
        self.stats.proxies_stopped.inc()

    def _custody_changed(self, identity: str) -> None:
        if self.custody is not None:
            self.custody.changed(identity)

    def _gauges(self) -> dict[str, float]:
        pending = len(self.pods.pending())
        workloads, services, policies = self.discovery.mesh.counts()
        return {
            "workload_manager_active_proxy_count": len(self.pods.infos()) - pending,
            "workload_manager_pending_proxy_count": pending,
            "ambient_workers": len(list(self.crew)),
            "ambient_workers_compiled": sum(1 for worker in self.crew if worker.form.startswith("compiled")),
            "ambient_known_workloads": workloads,
            "ambient_known_services": services,
            "ambient_known_policies": policies,
            "ambient_not_understood": self.discovery.not_understood,
            "ambient_flows_lost": self.flows.lost,
            **self.certificates.gauges(),
            **(self.custody.gauges() if self.custody is not None else {}),
            "ambient_spans_waiting": self.exporter.waiting if self.exporter is not None else 0,
        }

    def close(self) -> None:
        """Let go of every descriptor."""
        self.estate.close()
        self.crew.close()
        self.pods.close()
        self.shares.close()
        self.certificates.close()


def _certificate(identity: str, secret: Secret) -> ipc.Certificate:
    return ipc.Certificate(identity=identity, roots=secret.roots, not_after_unix=secret.not_after)


def _revocations(keys: Keys | None) -> ipc.Revocations:
    return ipc.Revocations(unknown=True) if keys is None else ipc.Revocations(keys=keys)
