"""Answers to workers stay true: whatever discovery does, a worker never keeps one that has become false."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from ambient.model.address import IpAddress
from ambient.model.mesh import Mesh, Value
from ambient.model.workload import (
    GatewayAddress,
    Health,
    NamespacedHostname,
    NetworkAddress,
    NetworkMode,
    Port,
    Service,
    TunnelProtocol,
    Workload,
)
from ztunnel.director.answers import Answers
from ztunnel.director.policies import PodInfo, Site
from ztunnel.ipc.authorities import AuthorityAsk
from ztunnel.ipc.messages import Forget, NameAsk, PeerAsk, RouteAsk

SITE = Site("n1", "Kubernetes", "cluster.local", "")
POD = PodInfo("uid-a", "a", "shop", "a")
WORKER = 7
ADDRESSES = [ip_address(f"10.0.0.{n}") for n in range(1, 5)]
VIPS = [ip_address(f"10.96.0.{n}") for n in range(1, 3)]
HOSTS = ["x.shop.svc.cluster.local", "y.shop.svc.cluster.local"]


EAST = GatewayAddress(NetworkAddress("east", ADDRESSES[0]))
WAYPOINTS = [
    GatewayAddress(NamespacedHostname("shop", HOSTS[0])),
    GatewayAddress(NetworkAddress("", VIPS[1])),
    GatewayAddress(NetworkAddress("", ADDRESSES[0])),
]


@st.composite
def values(draw: st.DrawFn) -> Value:
    if draw(st.booleans()):
        name = draw(st.sampled_from("abc"))
        return Workload(
            uid=f"Kubernetes//Pod/shop/{name}",
            name=name,
            namespace="shop",
            addresses=(draw(st.sampled_from(ADDRESSES)),),
            tunnel_protocol=draw(st.sampled_from(TunnelProtocol)),
            status=draw(st.sampled_from(Health)),
            node=draw(st.sampled_from(["n1", "n2"])),
            waypoint=draw(st.sampled_from([None, *WAYPOINTS])),
            refused=draw(st.sampled_from(["", "", "", "junk"])),
            network=(network := draw(st.sampled_from(["", "", "", "east"]))),
            network_gateway=EAST if network else None,
            network_mode=draw(st.sampled_from([NetworkMode.STANDARD, NetworkMode.STANDARD, NetworkMode.HOST_NETWORK])),
            hostname=draw(st.sampled_from(["", HOSTS[1]])),
            services={f"shop/{host}": (Port(80, 8080),) for host in draw(st.sets(st.sampled_from(HOSTS)))},
            workload_name=draw(st.sampled_from(["one", "two"])),
        )
    host = draw(st.sampled_from(HOSTS))
    vips = draw(st.sets(st.sampled_from(VIPS)))
    return Service(
        name=host[0],
        namespace="shop",
        hostname=host,
        addresses=tuple(NetworkAddress("", vip, draw(st.sampled_from([None, None, 24]))) for vip in sorted(vips)),
        ports=(Port(80, 8080),),
        subject_alt_names=draw(st.sampled_from([(), ("spiffe://cluster.local/ns/shop/sa/far",)])),
        refused=draw(st.sampled_from(["", "", "", "junk"])),
        waypoint=draw(st.sampled_from([None, *WAYPOINTS])),
        canonical=draw(st.booleans()),
    )


changes = st.lists(
    st.tuples(
        st.lists(values(), max_size=2),
        st.lists(
            st.one_of(
                st.tuples(st.just("workload"), st.sampled_from([f"Kubernetes//Pod/shop/{n}" for n in "abc"])),
                st.tuples(st.just("service"), st.sampled_from([f"shop/{host}" for host in HOSTS])),
            ),
            max_size=2,
        ),
    ),
    max_size=6,
)


def answers(mesh: Mesh, **options: Any) -> Answers:
    made = Answers(mesh, SITE, domain="cluster.local", registry_only=False, **options)
    made.joined(WORKER)
    return made


def everything(asker: Answers) -> dict[object, object]:
    """Each question there is, with its answer now."""
    found: dict[object, object] = {}
    for ip in (*ADDRESSES, *VIPS):
        found["uid-a", ip, 80] = asker.route(WORKER, POD, RouteAsk(uid="uid-a", ip=ip, port=80)).plan
        found[ip] = asker.peer(WORKER, PeerAsk(ip=ip)).labels
        found["uid-a", f"{ip}:80"] = asker.authority(WORKER, POD, AuthorityAsk(uid="uid-a", authority=f"{ip}:80"))
    for host in HOSTS:
        ask = AuthorityAsk(uid="uid-a", authority=f"{host}:80")
        found["uid-a", ask.authority] = asker.authority(WORKER, POD, ask)
    for name in (*HOSTS, "x", "y.shop", "nobody"):
        found["name", name] = asker.name(WORKER, POD, NameAsk(uid="uid-a", name=name, qtype="A"))
    return found


@settings(max_examples=300, deadline=None)
@given(changes)
def test_what_a_worker_still_has_after_any_change_is_what_it_would_get_now(history: list[Any]) -> None:
    mesh = Mesh()
    asker = answers(mesh)
    cached = everything(asker)
    for put, gone in history:
        unique = {getattr(value, "uid", None) or value.key: value for value in put}
        change = mesh.apply(unique.values(), gone)

        def forget(pid: int, message: Forget) -> None:
            assert pid == WORKER
            dropped = {*message.routes, *message.peers, *message.authorities}
            for key in [
                k for k in cached if k in dropped or (message.names and isinstance(k, tuple) and k[0] == "name")
            ]:
                del cached[key]

        asker.forget(change, forget)
        fresh = everything(answers(mesh))
        for key, value in cached.items():
            assert value == fresh[key], key
        cached.update(everything(asker))


def test_nothing_is_forgotten_for_a_change_that_concerns_nobody() -> None:
    mesh = Mesh()
    asker = answers(mesh)
    asker.peer(WORKER, PeerAsk(ip=ADDRESSES[0]))
    sent: list[Forget] = []
    far = Workload(uid="Kubernetes//Pod/far/z", name="z", namespace="far", addresses=(ip_address("10.9.9.9"),))
    asker.forget(mesh.apply([far]), lambda _pid, message: sent.append(message))
    assert sent == []
    asker.forget(mesh.apply([replace(far, addresses=(ADDRESSES[0],))]), lambda _pid, message: sent.append(message))
    assert sent == [Forget(peers=(ADDRESSES[0],))]


def test_questions_are_bounded_and_the_worker_is_told_what_to_drop() -> None:
    asker = answers(Mesh(), limit=3)
    dropped: list[IpAddress] = []
    for number in range(10):
        asker.peer(WORKER, PeerAsk(ip=ip_address(f"10.1.0.{number}")))
        message = asker.overflow(WORKER)
        dropped += message.peers if message else ()
    assert dropped == [ip_address(f"10.1.0.{number}") for number in range(7)]


def test_names_that_a_pod_invents_are_bounded_too() -> None:
    asker = answers(Mesh(), limit=50)
    told = 0
    for number in range(1000):
        asker.name(WORKER, POD, NameAsk(uid="uid-a", name=f"n{number}.example", qtype="A"))
        message = asker.overflow(WORKER)
        told += message is not None and message.names
        assert len(asker._asked[WORKER].names) <= 50
    assert told > 10


def test_the_answers_of_a_pod_that_left_are_taken_back_once() -> None:
    mesh = Mesh()
    asker = answers(mesh)
    asker.route(WORKER, POD, RouteAsk(uid="uid-a", ip=ADDRESSES[0], port=80))
    asker.route(WORKER, POD, RouteAsk(uid="uid-b", ip=ADDRESSES[0], port=80))
    asker.peer(WORKER, PeerAsk(ip=ADDRESSES[1]))
    sent: list[Forget] = []
    asker.gone("uid-a", lambda _pid, message: sent.append(message))
    assert sent == [Forget(routes=(("uid-a", ADDRESSES[0], 80),))]
    asker.gone("uid-b", lambda _pid, _message: None)
    sent.clear()
    one = Workload(uid="Kubernetes//Pod/shop/b", name="b", namespace="shop", addresses=(ADDRESSES[0],))
    asker.forget(mesh.apply([one]), lambda _pid, message: sent.append(message))
    assert sent == []


def test_a_worker_that_left_is_not_told_anything() -> None:
    mesh = Mesh()
    asker = answers(mesh)
    asker.peer(WORKER, PeerAsk(ip=ADDRESSES[0]))
    asker.left(WORKER)
    asker.peer(WORKER, PeerAsk(ip=ADDRESSES[0]))
    one = Workload(uid="Kubernetes//Pod/shop/b", name="b", namespace="shop", addresses=(ADDRESSES[0],))
    asker.forget(mesh.apply([one]), lambda _pid, _message: (_ for _ in ()).throw(AssertionError))
    assert asker.overflow(WORKER) is None


def test_of_a_name_that_several_namespaces_have_the_preferred_one_counts() -> None:
    def one(namespace: str, ip: str) -> Service:
        vip = NetworkAddress("", ip_address(ip))
        return Service(name="x", namespace=namespace, hostname="x.example", addresses=(vip,))

    mesh = Mesh()
    mesh.apply([one("a", "10.96.0.1"), one("b", "10.96.0.2")])
    ask = NameAsk(uid="uid-a", name="x.example", qtype="A")
    assert answers(mesh).name(WORKER, POD, ask).addresses == ("10.96.0.1",)
    assert answers(mesh, preferred_namespace="b").name(WORKER, POD, ask).addresses == ("10.96.0.2",)
