"""User half of `bpf/`: load, pin, attach, read and write. The only package besides `ambient.netns` that may use ctypes.

Everything lives under one bpffs directory per node that the caller names (say `/sys/fs/bpf/ambient/<lab>/<node>`):
`version`-ed programs in `programs/`, maps in `maps/`, one directory of TCX links per pod in `pods/<uid>/`. Nothing here
stays resident and no state is kept in Python: every call opens what it needs from the pins.

The order that the capture contract asks for, in terms of this package:

    programs.load(bpffs, "auto")                      # once per agent start; reuses or upgrades what is pinned
    with maps.Maps.open(bpffs) as tables:             # cheap, keep it open
        tables.owners.put(cgroup_id, Role.ZTUNNEL)    # cgroup v2 id (`maps.cgroup_id(pid)`); also Role.KUBELET
        tables.pods.put(ip, PodRow(Flag(0), epoch=epoch, host_ifindex=...))  # each pod address, FIRST
        undo = pod_net.prepare(netns_fd)              # policy route and sysctl inside the pod; keep `undo` (JSON-able)
        programs.attach_pod(bpffs, netns_fd, pod_uid, "eth0")
        programs.attach_host(bpffs, host_netns_fd, pod_uid, veth_name)       # probes, and the guard behind the pod
        ...ZDS add, acknowledged...
        tables.pods.put(ip, PodRow(Flag.CAPTURE_OUT | Flag.CAPTURE_IN | Flag.HBONE_IN | Flag.DNS, fail_in=..., ...))
        # release: put(ip, PodRow(Flag.HBONE_IN, ...)), drain, ZDS del, then
        programs.detach_pod(bpffs, pod_uid)           # links first,
        pod_net.restore(netns_fd, undo)
        tables.pods.delete(ip)                        # the row last: a SYN of an attached pod without row is refused
    programs.unload(bpffs)                            # nothing is left, the directory is gone

Signatures:

    programs.load(bpffs: Path, loader: Literal["auto", "bcc", "object"] = "auto") -> Loaded(loader, version, reused)
    programs.attach_pod(bpffs: Path, netns_fd: int, pod_uid: str, ifname: str = "eth0") -> tuple[Path, ...]
    programs.attach_host(bpffs: Path, netns_fd: int, pod_uid: str, ifname: str) -> tuple[Path, ...]
    programs.attached(bpffs: Path) -> dict[str, tuple[Attachment, ...]]  # Attachment(program, target, alive)
    programs.detach_pod(bpffs: Path, pod_uid: str) -> None                   # pod and host side; fine when already gone
    programs.unload(bpffs: Path) -> None
    maps.Maps.open(bpffs: Path) -> Maps        # context manager; .pods .owners .config .counters
      .pods.get(ip) -> PodRow | None; .put(ip, row); .delete(ip) -> bool; .items() -> dict[IpAddress, PodRow]
      .owners.put(cgroup_id, Role); .delete(cgroup_id); .items() -> dict[int, Role]
      .counters.read() -> dict[Counter, int]   # summed over CPUs
      .config.options() -> Option; .config.set(Option)     # Option.MARK_ALONE: load() sets it without cgroup v2
    maps.cgroup_id(pid: int) -> int | None     # None: no cgroup v2 here (mark alone decides, config shows it)
    maps.cgroup_id_of(directory: Path) -> int
    pod_net.prepare(netns_fd: int) -> PodNet; PodNet.as_json() / PodNet.from_json()
    pod_net.restore(netns_fd: int, undo: PodNet) -> None
    pod_net.peer_ifindex(netns_fd: int, ifname: str = "eth0") -> int         # IFLA_LINK: the host side's ifindex
    plan.plan(wanted: Mapping[IpAddress, PodRow], present: Mapping[IpAddress, PodRow]) -> tuple[Put | Delete, ...]
    ambient.netns.entered(netns_fd: int)       # context manager: this thread is in that netns; synchronous code only

Attaching, detaching, preparing and restoring are idempotent. All raise `ambient.errors.KernelError` when the kernel
refuses (with the verifier's log where there is one) and `Unavailable` when a loader is missing. None of them is a
coroutine; each takes well under a millisecond except `load` (bcc about 1 s, object 0.1 to 0.5 s, in a subprocess) and
the pod_net calls (a few ms).
"""
