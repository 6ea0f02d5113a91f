"""Takes everything the agent ever put on a node off it again, whatever is left of it: links, maps, rules, routes,
annotations, its own files. Goes on past what fails and says so at the end.
"""

from __future__ import annotations

import contextlib
import logging
import shutil
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Final

from ambient.agent.captures import OWNERS_FILE
from ambient.agent.farewell import what_was_said
from ambient.agent.host import installation, locator
from ambient.agent.journal import Journal
from ambient.agent.podns import PodNetns
from ambient.agent.sandboxes import Sandboxes
from ambient.agent.settings import AgentSettings
from ambient.datapath import pod_net, programs, rule_tables
from ambient.datapath.exchange import PODS
from ambient.datapath.rule_tables import owner_name
from ambient.datapath.rules import NODE
from ambient.errors import KernelError, MeshError, Unavailable
from ambient.kube.objects import Pod

_PRISTINE: Final = pod_net.PodNet("0")
"""What a pod's network looks like by default, for pods of which no journal entry is left."""

log = logging.getLogger("ambient.agent.uninstall")


def uninstall(settings: AgentSettings) -> None:
    """Raises KernelError naming everything that could not be taken off; calling it again is fine."""
    failures: list[str] = []

    def attempt(what: str, work: Callable[[], None]) -> None:
        try:
            work()
        except (MeshError, OSError) as error:
            log.error("%s: %s", what, error)
            failures.append(f"{what}: {error}")

    installed = installation(settings)
    if installed is not None:
        attempt("CNI plugin", installed.remove)
    journal = Journal(settings.state / "pods")
    names = {entry.pod.uid: (entry.pod.namespace, entry.pod.name) for entry in journal}
    with what_was_said(settings) as said:
        pods: list[Pod] = []
        attempt("the node's pods", lambda: pods.extend(said.pods()))
        for pod in pods:
            # First, so that nobody sends to a ztunnel that is about to go.
            attempt(f"annotations of pod {pod.namespace}/{pod.name}", partial(said.forget, pod))
        attempt("taint", said.untaint)
    names |= {pod.uid: (pod.namespace, pod.name) for pod in pods}
    _take_off(settings, journal, names, attempt)
    if not failures:
        attempt("state directory", lambda: shutil.rmtree(settings.state / "pods"))
        attempt("owners", partial((settings.state / OWNERS_FILE).unlink, missing_ok=True))
        attempt("sandboxes", lambda: shutil.rmtree(settings.state / "sandboxes"))
        for path in (settings.zds_socket, settings.custody_socket, settings.cni_socket):
            if path is not None:
                attempt(f"socket {path}", partial(path.unlink, missing_ok=True))
        if settings.on_kubernetes:
            # The folder that we share with ztunnel: nobody else comes to take away what one leaves for the next.
            folder, left = settings.zds_socket.parent, list[Path]()
            attempt(f"ztunnel's {folder}", lambda: left.extend(folder.iterdir()))
            for path in left:
                attempt(f"ztunnel's {path}", partial(shutil.rmtree, path) if path.is_dir() else path.unlink)
        with contextlib.suppress(OSError):
            settings.bpffs.parent.rmdir()  # ours when we made it; others may have theirs in it
    if failures:
        raise KernelError("uninstall", settings.node, "; ".join(failures))


def _take_off(
    settings: AgentSettings,
    journal: Journal,
    names: Mapping[str, tuple[str, str]],
    attempt: Callable[[str, Callable[[], None]], None],
) -> None:
    """Links, programs, maps and routes."""
    where = locator(settings, Sandboxes(settings.state / "sandboxes"))
    entries = {entry.pod.uid: entry for entry in journal}
    pins = settings.bpffs / PODS
    linked = {path.name for path in pins.iterdir()} if pins.is_dir() else set()
    owner = owner_name(settings.node, settings.state)
    ruled: set[str] = set()
    attempt("nftables", lambda: ruled.update(rule_tables.remove_all(owner)))
    for uid in sorted(linked):
        # Whole directories: an agent of another version may have pinned links that this one does not know.
        attempt(f"links of pod {uid}", partial(shutil.rmtree, pins / uid))
    attempt("programs and maps", lambda: programs.unload(settings.bpffs))
    linked |= ruled - {NODE}
    unknown = {uid: ("", uid) for uid in linked - names.keys()} if settings.on_kubernetes else {}
    for uid, (namespace, name) in sorted(({**names, **unknown}).items(), key=lambda item: item[1]):
        entry = entries.get(uid)
        if entry is None and uid not in linked and uid not in journal.unreadable:
            continue
        undo = _PRISTINE if entry is None or entry.undo is None else pod_net.PodNet.from_json(entry.undo)
        attempt(f"routes of pod {namespace}/{name}", partial(_restore, partial(where.open, uid, namespace, name), undo))
        journal.drop(uid)
        log.info("pod %s/%s: out of the mesh", namespace, name)


def _restore(opened: Callable[[], PodNetns], undo: pod_net.PodNet) -> None:
    try:
        netns = opened()
    except Unavailable:
        return  # gone, and its routes with it
    try:
        pod_net.restore(netns.fd, undo)
    finally:
        netns.close()
