"""One lab from the outside: make it, change its objects, enter its pods, take it down.

Every method works on the lab's files and names only; nothing is kept in this process. Changes of objects hold the
lab's lock, so two commands at a time do not give one address to two pods.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ambient.errors import InvalidInput, MeshError, Refused, Unavailable
from ambient.kube.files import read_json
from ambient.kube.folder import ObjectFolder
from ambient.kube.objects import Namespace, Node, Pod, Record, Records, ServiceAccount, parse_object, record_key
from ambient.kube.status import file_name
from ambient.lab import cgroup, credentials, network, waypoints
from ambient.lab.addresses import free_index
from ambient.lab.admission import Cluster
from ambient.lab.apply import LAST_APPLIED, desired, labelled, merge, shown, stamped
from ambient.lab.components import token_file
from ambient.lab.names import LABS, SYSTEM_NAMESPACES, Names
from ambient.lab.settings import LabSettings, load, write_atomically
from ambient.lab.settings import read_json as read_settings
from ambient.lab.supervisor import ensure_supervisor

_FIRST: Final = ("Namespace", "Node", "ServiceAccount")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one object: `what` is "created", "configured", ... and `error` is empty, or the reason."""

    subject: str
    what: str
    error: str = ""

    def __str__(self) -> str:
        return f"{self.subject} {self.what}" + (f": {self.error}" if self.error else "")


def require_root() -> None:
    """Raises Refused unless we are root."""
    if os.geteuid():
        raise Refused("not root", why="a lab needs network namespaces, cgroups and eBPF: run it as root or with sudo")


@contextmanager
def all_labs_locked() -> Iterator[None]:
    """Hold the lock on the folder of all labs (made if needed): address ranges are given and taken back under it."""
    while True:
        LABS.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(LABS, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            try:
                current = LABS.stat().st_ino
            except FileNotFoundError:
                continue  # removed while we waited
            if os.fstat(descriptor).st_ino == current:
                yield
                return
        finally:
            os.close(descriptor)


def lab_names() -> list[str]:
    """Labs that have a folder."""
    try:
        return sorted(entry.name for entry in os.scandir(LABS) if entry.is_dir())
    except FileNotFoundError:
        return []


class Lab:
    """A lab that exists. Raises Unavailable when it does not."""

    def __init__(self, names: Names) -> None:
        self.settings = load(names)
        self.names = names
        self.folder = ObjectFolder(names.objects)

    @staticmethod
    def make(names: Names, *, mesh: bool = True, env: Iterable[tuple[str, str]] = ()) -> Lab:
        """A new lab without nodes, or the one that is there with all that should run running again."""
        require_root()
        if not Path("/etc/resolv.conf").exists():
            raise Refused("no /etc/resolv.conf", why="pods get their own laid over it: make it, an empty one will do")
        with all_labs_locked():
            if not names.settings.exists():
                indexes = {settings["index"] for settings in map(_settings_of, lab_names()) if settings}
                settings = LabSettings(names.lab, free_index(indexes), mesh, tuple(env))
                credentials.make_ca(names.credentials)
                credentials.make_token_key(names.credentials)
                settings.save()
        lab = Lab(names)
        with lab.locked():
            lab._repair()
        return lab

    def _repair(self) -> None:
        """Everything below the objects: networks of control plane and nodes, system namespaces, the supervisor."""
        cgroup.path(self.names.cgroup("capture"))
        network.make_underlay(self.names, self.settings.plan)
        records = self.folder.records()
        missing: list[Record] = []
        for name in SYSTEM_NAMESPACES:
            if record_key("Namespace", "", name) not in records.by_key:
                raw = {"apiVersion": "v1", "kind": "Namespace", "metadata": _named(name)}
                missing.append(parse_object(raw, "system namespace"))
            if record_key("ServiceAccount", name, "default") not in records.by_key:
                raw = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default", "namespace": name}}
                missing.append(parse_object(raw, "system namespace"))
        self.folder.put(missing)
        for node in records.of(Node):
            self._make_node(node)
        ensure_supervisor(self.settings)

    def _make_node(self, node: Node) -> None:
        number = self.settings.plan.node_number(node.pod_cidrs)
        network.make_node(self.names, self.settings.plan, node.name, number)
        self.names.node_folder(number).mkdir(parents=True, exist_ok=True)
        for account in ("agent", "ztunnel"):
            path = token_file(self.settings, number, account)
            if not path.exists():
                write_atomically(path, credentials.node_token(self.names.credentials, node.name, account), 0o600)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the lab's lock: nobody else changes its objects. Raises Unavailable when the lab went meanwhile."""
        try:
            descriptor = os.open(self.names.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except FileNotFoundError:
            raise Unavailable(f"no lab {self.names.lab!r}", why="it went down") from None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            if not self.names.lock.exists() or self.names.lock.stat().st_ino != os.fstat(descriptor).st_ino:
                raise Unavailable(f"no lab {self.names.lab!r}", why="it went down")
            yield
        finally:
            os.close(descriptor)

    def records(self) -> Records:
        return self.folder.records()

    def stored(self, record: Record | str) -> dict[str, Any] | None:
        """The object as it is stored, without what status writers say; None when it is not there."""
        key = record if isinstance(record, str) else record.key
        try:
            return read_json(self.names.objects / "objects" / file_name(key))
        except FileNotFoundError:
            return None

    # --- apply, label

    def apply(self, wanted: Iterable[Record]) -> list[Outcome]:
        """Each object created, changed or refused on its own; all that is accepted becomes one change."""
        wanted = waypoints.with_their_objects(wanted, self.settings)
        ordered = sorted(wanted, key=lambda r: _FIRST.index(r.kind) if r.kind in _FIRST else len(_FIRST))
        outcomes = []
        with self.locked():
            cluster = Cluster.of(self.names, self.settings.plan, self.folder.records())
            changes: list[Record] = []
            for record in ordered:
                try:
                    outcomes.append(self._apply_one(record, cluster, changes))
                except MeshError as error:
                    outcomes.append(Outcome(shown(record), "refused", str(error)))
            for node in cluster.new_nodes:
                self._make_node(node)
            # By key: a file may bring its own version of a service account that comes with its namespace.
            self.folder.put({r.key: r for r in [*cluster.new_nodes, *changes]}.values())
        return outcomes

    def _apply_one(self, record: Record, cluster: Cluster, changes: list[Record]) -> Outcome:
        new, live = desired(record), self.stored(record)
        if live is None:
            admitted = cluster.admit(record, stamped(new, new))
            if not isinstance(admitted, Node):
                changes.append(admitted)
            if isinstance(admitted, Namespace):
                changes.append(cluster.default_account(admitted))
            return Outcome(shown(record), "created")
        if live["metadata"].get("deletionTimestamp"):
            raise Refused("it is being deleted", why="apply it again when it is gone")
        merged = stamped(merge(live, new, record.kind), new)
        if _same(merged, live):
            return Outcome(shown(record), "unchanged")
        parsed = parse_object(merged, "apply")
        if record.kind == "Service":
            parsed = cluster.admit(parsed, merged)
        changes.append(cluster.remember(parsed))
        return Outcome(shown(record), "configured")

    def label(self, kind: str, name: str, changes: list[str], *, overwrite: bool = False) -> Outcome:
        """Set or remove labels of a cluster-wide object; raises InvalidInput or Refused."""
        with self.locked():
            key = record_key(kind, "", name)
            live, record = self.stored(key), self.folder.records().by_key.get(key)
            if live is None or record is None:
                raise Refused(f'{kind.lower()}s "{name}" not found')
            raw = labelled(live, record, changes, overwrite=overwrite)
            if (raw["metadata"].get("labels") or {}) == (live["metadata"].get("labels") or {}):
                return Outcome(shown(record), "not labeled")
            self.folder.put([parse_object(raw, "label")])
        removed = all("=" not in change for change in changes)
        return Outcome(shown(record), "unlabeled" if removed else "labeled")

    # --- delete

    def delete(self, wanted: Iterable[Record]) -> tuple[list[Outcome], list[Record]]:
        """Start deleting. The second list is what goes only later: pods, and what is in a namespace that goes.

        When the pods are gone, hand the list to `finish_delete`.
        """
        wanted = waypoints.with_their_objects(wanted, self.settings)
        outcomes: list[Outcome] = []
        later: dict[str, Record] = {}
        now: list[Record] = []
        with self.locked():
            records = self.folder.records()
            for asked in wanted:
                record = records.by_key.get(asked.key)
                reason = f"NotFound: {asked.key} not found" if record is None else _undeletable(record, records)
                if record is None or reason:
                    outcomes.append(Outcome(shown(asked), "refused", reason))
                    continue
                if isinstance(record, Namespace):
                    # Policies stay until the last pod that they protect is gone.
                    later.update({r.key: r for r in records.by_key.values() if r.namespace == record.name})
                if isinstance(record, Namespace | Pod):
                    later[record.key] = record
                else:
                    now.append(record)
                outcomes.append(Outcome(shown(asked), "deleted"))
            leaving = [r for r in later.values() if isinstance(r, Namespace | Pod) and not r.deleting]
            self.folder.put([self._marked(record) for record in leaving])
            self.folder.delete(now)
        for record in now:
            if isinstance(record, Node):
                self._remove_node(record.name)
        return outcomes, list(later.values())

    def finish_delete(self, left: Iterable[Record]) -> None:
        """Remove what was to go after the pods."""
        with self.locked():
            self.folder.delete([record for record in left if not isinstance(record, Pod)])

    def _marked(self, record: Record) -> Record:
        raw = self.stored(record)
        assert raw is not None
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        return parse_object({**raw, "metadata": {**raw["metadata"], "deletionTimestamp": now}}, "delete")

    def reboot(self, node: str) -> None:
        """A node crashes and comes back: all its processes, namespaces and pins are gone at once, disks stay.

        Raises Refused when there is no such node.
        """
        with self.locked():
            records = self.folder.records()
            found = records.find(Node, "", node)
            if found is None:
                raise Refused(f'nodes "{node}" not found')
            number = self.settings.plan.node_number(found.pod_cidrs)
            network.remove(self.names.node(node))  # first, so that nothing that is started anew gets into it
            group = cgroup.place(self.names.cgroup("nodes", node))
            cgroup.kill(group)
            for pod in records.of(Pod):
                if pod.node_name == node and not pod.host_network:
                    network.remove(self.names.pod(pod.namespace, pod.name))
                if pod.node_name == node:
                    shutil.rmtree(self.names.pod_folder(pod.uid), ignore_errors=True)
            remove_pins(self.names.bpffs / node)
            shutil.rmtree(self.names.node_folder(number) / "agent", ignore_errors=True)
            for writer in ("kubelet", "agent"):  # what they had acted upon counts no more
                (self.names.objects / "status" / f"{writer}-{node}" / ".revision").unlink(missing_ok=True)
            self._make_node(found)

    def _remove_node(self, node: str) -> None:
        mounted = cgroup.mount_point()
        if mounted is not None:
            cgroup.remove(mounted / self.names.cgroup("nodes", node))
        if network.exists(self.names.node(node)):
            network.remove(self.names.node(node))

    def pod(self, text: str) -> Pod:
        """The pod NAMESPACE/NAME (or NAME, in `default`); raises InvalidInput or Refused."""
        namespace, _, name = text.rpartition("/")
        if not name or "/" in namespace:
            raise InvalidInput("not a pod", repr(text), "expected NAMESPACE/POD")
        pod = self.folder.records().find(Pod, namespace or "default", name)
        if pod is None:
            raise Refused(f'pods "{text}" not found')
        return pod


def remove_pins(folder: Path) -> None:
    """bpffs holds plain directories and pins; both go by unlink and rmdir. Nothing happens when it is not there."""
    for directory, _, files in os.walk(folder, topdown=False):
        for file in files:
            (Path(directory) / file).unlink(missing_ok=True)
        os.rmdir(directory)


def _settings_of(lab: str) -> dict[str, Any] | None:
    raw = read_settings(Names(lab).settings)
    return raw if isinstance(raw, dict) and isinstance(raw.get("index"), int) else None


def _named(name: str) -> dict[str, Any]:
    return {"name": name, "labels": {"kubernetes.io/metadata.name": name}}


def _same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    def plain(raw: dict[str, Any]) -> dict[str, Any]:
        annotations = {k: v for k, v in (raw["metadata"].get("annotations") or {}).items() if k != LAST_APPLIED}
        return {**raw, "metadata": {**raw["metadata"], "annotations": annotations}}

    return plain(one) == plain(other)


def _undeletable(record: Record, records: Records) -> str:
    if isinstance(record, Namespace) and record.name in SYSTEM_NAMESPACES:
        return f'Forbidden: namespace "{record.name}" belongs to the lab'
    if isinstance(record, ServiceAccount) and record.name == "default":
        return "Forbidden: every namespace has its default service account"
    if isinstance(record, Node) and (pods := [p for p in records.of(Pod) if p.node_name == record.name]):
        return f"Forbidden: {len(pods)} pods are on it"
    return ""
