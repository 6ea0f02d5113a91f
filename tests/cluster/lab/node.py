"""One node: namespaces with a disk of their own. It can be started, crashed, and entered."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from tests.cluster.lab import configuration, credentials, programs
from tests.cluster.lab.control_plane import join_bridge, leave_bridge
from tests.cluster.lab.plan import Plan
from tests.cluster.lab.processes import alive, end, inside, run, start, wait

CNI_PLUGINS: Final = ("bridge", "host-local", "loopback", "portmap", "ptp")
_CGROUPS: Final = Path("/sys/fs/cgroup")
_MEMORY: Final = 8 << 30
_SETTINGS: Final = (
    *("net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1"),
    *("net.bridge.bridge-nf-call-iptables=1", "net.ipv4.conf.all.rp_filter=0"),
)


def proxy_mode(node: int) -> str:
    """One node of either kind: the first has iptables, the others nftables."""
    return "iptables" if node == 1 else "nftables"


def up(plan: Plan, node: int, images: Sequence[Path]) -> None:
    """Start the node, new or after a crash; its disk is what it was."""
    if alive(_mark(plan, node)) is not None:
        return
    folder = plan.node_folder(node)
    for part in ("conf", "log", "cni-net", "cni-bin"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    credentials.make_node(plan, node)
    conf = folder / "conf"
    (conf / "containerd.toml").write_text(configuration.CONTAINERD)
    (conf / "kubelet.yaml").write_text(configuration.kubelet(plan, node))
    (conf / "proxy.yaml").write_text(configuration.proxy(plan, node, proxy_mode(node)))
    (conf / "resolv.conf").touch()
    conflist = folder / "cni-net" / "10-lab.conflist"
    if not conflist.exists():
        conflist.write_text(configuration.network(plan, node))
    for plugin in CNI_PLUGINS:
        target = folder / "cni-bin" / plugin
        if not target.exists():
            target.write_bytes(Path("/usr/lib/cni", plugin).read_bytes())
            target.chmod(0o755)
    _connect(plan, node)
    for group in _groups(plan, node):
        _prepare(group)
    environment = {
        "PATH": f"{programs.BIN}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "NODE": f"n{node}",
        "ADDRESS": plan.node_address(node),
        "FOLDER": str(folder),
        "BIN": str(programs.BIN),
        "IMAGES": " ".join(map(str, images)),
        "CGROUP": "2" if _unified() else "1",
    }
    joined = " && ".join(f"echo $$ >{group}/cgroup.procs" for group in _groups(plan, node))
    separate = "unshare --mount --pid --fork --uts --ipc --cgroup --kill-child"
    apart = f"nsenter --net=/run/netns/{plan.netns(f'n{node}')} {separate}"
    script = Path(__file__).with_name("node.sh")
    words = [f"{name}={value}" for name, value in environment.items()]
    argv = ["sh", "-c", f'{joined} && exec {apart} env -i "$@" sh {script}', "node", *words]
    start(_mark(plan, node), folder / "log" / "node.log", argv)


def crash(plan: Plan, node: int) -> None:
    """Everything of it is gone at once: processes, namespaces, what was in memory. Its disk stays."""
    first = first_process(plan, node)
    if first is not None:
        os.kill(first, signal.SIGKILL)
    end(_mark(plan, node))
    leave_bridge(plan, f"n{node}")
    for group in _groups(plan, node):
        wait(lambda group=group: _removed(group), f"empty {group}", 20)


def enter(plan: Plan, node: int, argv: Sequence[str]) -> list[str]:
    """The command line that runs `argv` inside the node, in all its namespaces and control groups."""
    first = first_process(plan, node)
    if first is None:
        raise SystemExit(f"cluster: node n{node} does not run")
    joined = " && ".join(f"echo $$ >{group}/cgroup.procs" for group in _groups(plan, node, leaf=True))
    return ["sh", "-c", f'{joined} && exec nsenter -t {first} -m -n -p -u -i -C "$@"', "enter", *argv]


def first_process(plan: Plan, node: int) -> int | None:
    """The node's process 1, as the machine counts."""
    pid = alive(_mark(plan, node))
    while pid is not None:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        inside = Path(f"/proc/{pid}/status").read_text().split("NSpid:")[1].splitlines()[0].split()
        if len(inside) > 1 and inside[-1] == "1" and _same_but(pid):
            return pid
        pid = int(children[0]) if children else None
    return None


def _same_but(pid: int) -> bool:
    """It is in another pid namespace than we are."""
    return os.readlink(f"/proc/{pid}/ns/pid") != os.readlink("/proc/self/ns/pid")


def _mark(plan: Plan, node: int) -> Path:
    return plan.folder / "run" / f"n{node}"


def _connect(plan: Plan, node: int) -> None:
    part = f"n{node}"
    leave_bridge(plan, part)
    join_bridge(plan, part, plan.node_address(node))
    netns = plan.netns(part)
    # /proc/sys/net is that of whoever opens it: no /sys is needed.
    run(*inside(netns, "sysctl", "-qw", *_SETTINGS))
    for other in range(1, 10):
        if other != node:
            run(*inside(netns, "ip", "route", "add", plan.node_pods(other), "via", plan.node_address(other)))
    route = (plan.node_pods(node), "via", plan.node_address(node))
    run(*inside(plan.netns("control"), "ip", "route", "replace", *route))


def _unified() -> bool:
    return (_CGROUPS / "cgroup.controllers").exists()


def _groups(plan: Plan, node: int, *, leaf: bool = False) -> Iterator[Path]:
    """The node's directory in every hierarchy; with `leaf` the one that may hold processes."""
    own = Path(plan.prefix, f"n{node}")
    if _unified():
        yield _CGROUPS / own / ("init" if leaf else "")
        return
    for hierarchy in sorted(path for path in _CGROUPS.iterdir() if path.is_dir() and (path / "cgroup.procs").exists()):
        yield hierarchy / own


def _prepare(group: Path) -> None:
    group.mkdir(parents=True, exist_ok=True)
    if (group / "cpuset.cpus").exists() and not _unified():
        for level in (group.parent, group):
            for name in ("cpuset.cpus", "cpuset.mems"):
                (level / name).write_text((group.parents[1] / name).read_text())
    for name in ("memory.limit_in_bytes", "memory.max"):
        if (group / name).exists():
            (group / name).write_text(str(_MEMORY))


def _removed(group: Path) -> bool:
    """Take the tree away, leaves first; False while something is still in it."""
    try:
        for path, _, _ in os.walk(group, topdown=False):
            os.rmdir(path)
    except OSError:
        return not group.exists()
    return True


def remove_groups(plan: Plan) -> None:
    """The common parent of all nodes' groups, once they are gone."""
    for group in {group.parent for group in _groups(plan, 1)}:
        if group.exists():
            _removed(group)
