"""The bridge, and etcd, API server, controller manager and scheduler in a network namespace of their own on it."""

from __future__ import annotations

from pathlib import Path

from tests.cluster.lab import credentials, programs
from tests.cluster.lab.plan import API_PORT, Plan
from tests.cluster.lab.processes import alive, end, inside, run, start, wait

ORDER = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler")


def join_bridge(plan: Plan, part: str, address: str) -> None:
    """A fresh network namespace whose eth0 is on the bridge."""
    netns = plan.netns(part)
    run("ip", "netns", "add", netns)
    run("ip", "link", "add", netns, "type", "veth", "peer", "name", "eth0", "netns", netns)
    run("ip", "link", "set", netns, "master", plan.bridge, "up")
    for words in (
        ("link", "set", "lo", "up"),
        ("addr", "add", f"{address}/24", "dev", "eth0"),
        ("link", "set", "eth0", "up"),
        ("route", "add", "default", "via", plan.machine_address),
    ):
        run(*inside(netns, "ip", *words))


def leave_bridge(plan: Plan, part: str) -> None:
    run("ip", "netns", "del", plan.netns(part), check=False)
    run("ip", "link", "del", plan.netns(part), check=False)


def up(plan: Plan) -> None:
    """Start what does not run; returns when the API server is ready."""
    if run("ip", "link", "show", plan.bridge, check=False).returncode != 0:
        run("ip", "link", "add", plan.bridge, "type", "bridge")
        run("ip", "addr", "add", f"{plan.machine_address}/24", "dev", plan.bridge)
        run("ip", "link", "set", plan.bridge, "up")
    credentials.make(plan)
    if not Path("/run/netns", plan.netns("control")).exists():
        join_bridge(plan, "control", plan.api_address)
        # A webhook is reached at its Service's address, which node 1 knows how to find.
        run(*inside(plan.netns("control"), "ip", "route", "add", plan.services, "via", plan.node_address(1)))
    for name in ORDER[:2]:
        _start(plan, name)
    wait(lambda: ready(plan) or _dead(plan, "kube-apiserver"), "ready API server", 120)
    if not ready(plan):
        raise SystemExit(f"cluster: the API server does not start:\n{_last(plan.logs / 'kube-apiserver.log')}")
    for name in ORDER[2:]:
        _start(plan, name)


def down(plan: Plan) -> None:
    for name in reversed(ORDER):
        end(plan.folder / "run" / name)
    leave_bridge(plan, "control")
    run("ip", "link", "del", plan.bridge, check=False)


def ready(plan: Plan) -> bool:
    if not plan.kubeconfig.exists():
        return False
    result = run(programs.BIN / "kubectl", "--kubeconfig", plan.kubeconfig, "get", "--raw", "/readyz", check=False)
    return result.returncode == 0


def _dead(plan: Plan, name: str) -> bool:
    return alive(plan.folder / "run" / name) is None


def _last(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-5:])


def _start(plan: Plan, name: str) -> None:
    mark = plan.folder / "run" / name
    if alive(mark) is None:
        argv = inside(plan.netns("control"), programs.BIN / name, *_options(plan, name))
        start(mark, plan.logs / f"{name}.log", argv)


def _options(plan: Plan, name: str) -> list[str]:
    pki, folder = plan.credentials, plan.folder
    match name:
        case "etcd":
            clients, peers = "http://127.0.0.1:2379", "http://127.0.0.1:2380"
            return [
                *(f"--data-dir={folder}/etcd", "--unsafe-no-fsync", "--logger=zap", "--log-level=warn"),
                *(f"--listen-client-urls={clients}", f"--advertise-client-urls={clients}"),
                *(f"--listen-peer-urls={peers}", f"--initial-advertise-peer-urls={peers}"),
                f"--initial-cluster=default={peers}",
            ]
        case "kube-apiserver":
            return [
                "--etcd-servers=http://127.0.0.1:2379",
                *(f"--bind-address={plan.api_address}", f"--advertise-address={plan.api_address}"),
                *(f"--secure-port={API_PORT}", f"--service-cluster-ip-range={plan.services}"),
                *("--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction"),
                *("--allow-privileged=true", "--profiling=false", f"--client-ca-file={pki}/ca.crt"),
                *(f"--tls-cert-file={pki}/apiserver.crt", f"--tls-private-key-file={pki}/apiserver.key"),
                f"--kubelet-client-certificate={pki}/apiserver-kubelet.crt",
                f"--kubelet-client-key={pki}/apiserver-kubelet.key",
                "--kubelet-preferred-address-types=InternalIP",
                "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
                f"--service-account-key-file={pki}/accounts.pub",
                f"--service-account-signing-key-file={pki}/accounts.key",
                *(f"--requestheader-client-ca-file={pki}/front-ca.crt", "--enable-aggregator-routing=true"),
                "--requestheader-allowed-names=front-proxy-client",
                "--requestheader-username-headers=X-Remote-User",
                "--requestheader-group-headers=X-Remote-Group",
                "--requestheader-extra-headers-prefix=X-Remote-Extra-",
                *(f"--proxy-client-cert-file={pki}/front.crt", f"--proxy-client-key-file={pki}/front.key"),
            ]
        case "kube-controller-manager":
            return [
                *_clients(plan, "controller-manager"),
                *("--use-service-account-credentials=true", "--allocate-node-cidrs=false"),
                *(f"--service-account-private-key-file={pki}/accounts.key", f"--root-ca-file={pki}/ca.crt"),
                *(f"--cluster-signing-cert-file={pki}/ca.crt", f"--cluster-signing-key-file={pki}/ca.key"),
                *(f"--service-cluster-ip-range={plan.services}", "--node-monitor-grace-period=20s"),
            ]
        case _:
            return _clients(plan, "scheduler")


def _clients(plan: Plan, name: str) -> list[str]:
    file = plan.folder / f"{name}.kubeconfig"
    return [
        *(f"--kubeconfig={file}", f"--authentication-kubeconfig={file}", f"--authorization-kubeconfig={file}"),
        *("--bind-address=127.0.0.1", "--leader-elect=false"),
    ]
