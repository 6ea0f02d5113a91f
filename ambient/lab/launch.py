"""Command lines that put a process where it belongs: cgroup, network namespace, and for containers a mount namespace.

Built from the machine's own tools (sh, nsenter, unshare, setpriv), so that starting one costs milliseconds and
nothing of Python stays behind. Pure: nothing is started here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from ambient.errors import InvalidInput
from ambient.kube.objects import Container, Pod
from ambient.lab.names import NETNS_DIR
from ambient.lab.volumes import Mount

_ENTER_CGROUP: Final = 'echo $$ > "$1/cgroup.procs" && shift && exec "$@"'

# $1 folder of the pod, $2 host name, $3 working directory, $4 "privileged" or "", then pairs of folder and mount path
# up to "--".
# /sys must show the pod's own devices and neither cgroups nor pins; /proc/sys is read-only as in any container
# runtime; the lab's keys are hidden; /dev/shm is the container's own, and goes with its last process. The order
# matters: the folder lies below what is hidden last.
# In a chroot "/" is no mount: entering the namespace we are in takes one mount command to its true root.
_PREPARE: Final = """
set -e
mount --make-rslave / 2>/dev/null || nsenter --mount=/proc/self/ns/mnt -- mount --make-rslave /
mount --bind "$1/resolv.conf" "$(readlink -f /etc/resolv.conf)"
if [ -e /etc/hosts ]; then mount --bind "$1/hosts" "$(readlink -f /etc/hosts)"; fi
echo "$2" > /proc/sys/kernel/hostname
directory=$3 privileged=$4
shift 4
while [ "$1" != -- ]; do
  [ -d "$2" ] || { echo "mountPath $2: no such folder on this machine" >&2; exit 1; }
  mount --bind -o ro "$1" "$2"
  shift 2
done
shift
if [ -z "$privileged" ]; then
  mount -t sysfs -o ro,nosuid,nodev,noexec sysfs /sys
  mount -o bind,ro /proc/sys /proc/sys
  if [ -d /dev/shm ]; then mount -t tmpfs -o nosuid,nodev,noexec,size=64m,mode=1777 tmpfs /dev/shm; fi
  mount -t tmpfs -o ro,size=4k,mode=0 tmpfs /run/ambient
fi
cd "$directory"
exec "$@"
"""

# What container runtimes leave to a container that asks for nothing.
_CAPABILITIES: Final = (
    *("audit_write", "chown", "dac_override", "fowner", "fsetid", "kill", "mknod", "net_bind_service", "net_raw"),
    *("setfcap", "setgid", "setpcap", "setuid", "sys_chroot"),
)
_REFERENCE: Final = re.compile(r"\$(\$|\(([^()]*)\))")


@dataclass(frozen=True, slots=True)
class Confinement:
    """What a container's process may be and do. `capabilities` are names in lower case without "cap_"."""

    privileged: bool = False
    capabilities: tuple[str, ...] = _CAPABILITIES
    user: int | None = None
    group: int | None = None

    def argv(self) -> list[str]:
        """The `setpriv` prefix."""
        options = []
        if self.group is not None or self.user is not None:
            options += ["--regid", str(self.group or 0), "--clear-groups"]
        if not self.privileged:
            bounding = ",".join(["-all", *(f"+{name}" for name in self.capabilities)])
            options += ["--inh-caps=-all", f"--bounding-set={bounding}"]
        if self.user is not None:
            options += ["--reuid", str(self.user)]
        return ["setpriv", *options, "--"] if options else []


def confinement(pod: Pod, container: str) -> Confinement:
    """From the securityContext of pod and container; raises InvalidInput for a value of the wrong type."""
    spec = pod.raw["spec"]
    own: dict[str, Any] = next((c for c in spec["containers"] if c.get("name") == container), {})
    context: dict[str, Any] = {**(spec.get("securityContext") or {}), **(own.get("securityContext") or {})}
    capabilities = context.get("capabilities") or {}
    where = f"spec.containers[{container}].securityContext"
    names = set(_CAPABILITIES)
    try:
        dropped, added = ([_capability(n) for n in capabilities.get(key) or ()] for key in ("drop", "add"))
        names = set() if "all" in dropped else names - set(dropped)
        names |= set(added)
        if "all" in added:
            return Confinement(capabilities=("all",), user=context.get("runAsUser"), group=context.get("runAsGroup"))
        user, group = context.get("runAsUser"), context.get("runAsGroup")
        if not all(value is None or (isinstance(value, int) and value >= 0) for value in (user, group)):
            raise TypeError("runAsUser and runAsGroup are numbers")
        return Confinement(context.get("privileged") is True, tuple(sorted(names)), user, group)
    except (TypeError, AttributeError) as error:
        raise InvalidInput(f"pod {pod.namespace}/{pod.name}", where, str(error)) from None


def _capability(name: str) -> str:
    return name.lower().removeprefix("cap_")


def in_cgroup(cgroup: Path, argv: Sequence[str]) -> list[str]:
    """`argv` run inside a cgroup that exists."""
    return ["sh", "-c", _ENTER_CGROUP, "sh", str(cgroup), *argv]


def in_netns(netns: str, argv: Sequence[str]) -> list[str]:
    return ["nsenter", f"--net={NETNS_DIR / netns}", "--", *argv]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a container's processes run. `folder` holds the pod's resolv.conf and hosts."""

    cgroup: Path
    netns: str
    folder: Path
    hostname: str
    working_dir: str = "/"
    confinement: Confinement = field(default_factory=Confinement)
    mounts: tuple[Mount, ...] = ()


def in_pod(place: Place, argv: Sequence[str]) -> list[str]:
    """`argv` run as a process of a container."""
    prepared = [
        *("sh", "-c", _PREPARE, "sh", str(place.folder), place.hostname, place.working_dir),
        "privileged" if place.confinement.privileged else "",
        *(part for mount in place.mounts for part in (str(mount.source), mount.path)),
        "--",
        *place.confinement.argv(),
        *argv,
    ]
    # _PREPARE cuts the propagation: unshare cannot in a chroot.
    isolated = ["unshare", "--mount", "--uts", "--propagation=unchanged", "--", *prepared]
    return in_cgroup(place.cgroup, in_netns(place.netns, isolated))


def expand(text: str, env: Mapping[str, str]) -> str:
    """Kubernetes' $(NAME) in command, args and env; unknown names stay as written, $$ is one dollar sign."""

    def value(match: re.Match[str]) -> str:
        if match[1] == "$":
            return "$"
        return env.get(match[2], match[0])

    return _REFERENCE.sub(value, text)


def environment(pod: Pod, container: Container) -> dict[str, str]:
    """The whole environment of a container's process."""
    env = {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": "/root",
        "HOSTNAME": pod.hostname or pod.name,
    }
    fields = {
        "metadata.name": pod.name,
        "metadata.namespace": pod.namespace,
        "metadata.uid": pod.uid,
        "spec.nodeName": pod.node_name,
        "spec.serviceAccountName": pod.service_account,
        "status.hostIP": str(pod.host_ip or ""),
        "status.podIP": str(pod.ips[0]) if pod.ips else "",
        "status.podIPs": ",".join(str(ip) for ip in pod.ips),
    }
    for variable in container.env:
        env[variable.name] = fields[variable.field_path] if variable.field_path else expand(variable.value, env)
    return env


def command(container: Container, env: Mapping[str, str]) -> list[str]:
    return [expand(part, env) for part in (*container.command, *container.args)]
