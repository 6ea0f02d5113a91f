"""The indexed view: what is found by what, who wins, and what a change touches."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_network
from random import Random

import pytest

from ambient.model.mesh import Changes, Mesh, address_name, blocks_name, hostname_name, service_name, workload_name
from ambient.model.policy import Authorization, PolicyScope
from ambient.model.workload import Health, NetworkAddress, NetworkMode, Service, TunnelProtocol, Visibility, Workload
from tests.support.builders import allow, behind, deny, mesh, service, workload

IP = ip_address("10.0.0.1")
VIP = ip_address("10.96.0.1")


def test_nothing_is_found_in_an_empty_mesh() -> None:
    empty = Mesh()
    assert empty.workload("x") is None
    assert empty.workload_by_address("", IP) is None
    assert empty.service_by_address("", VIP, "default") is None
    assert empty.service_by_hostname("x", "default") is None
    assert empty.endpoints("default/x") == ()
    assert empty.workloads_on("n1") == ()
    assert empty.local_workload("default", "x") is None


def test_a_workload_is_found_by_uid_address_node_and_name() -> None:
    client = workload("client", "10.0.0.1,fd00::1")
    view = mesh(client)
    assert view.workload(client.uid) == client
    assert view.workload_by_address("", IP) == client
    assert view.workload_by_address("", ip_address("fd00::1")) == client
    assert view.workload_by_address("other", IP) is None
    assert view.workloads_on("n1") == (client,)
    assert view.local_workload("default", "client") == client
    assert view.local_workload("default", "client", "n1") == client
    assert view.local_workload("default", "client", "n2") is None
    assert view.local_workload("other", "client") is None


VM = replace(workload("vm"), uid="Kubernetes/networking.istio.io/WorkloadEntry/default/vm")
PLAIN_VM = replace(VM, uid=VM.uid + "2", tunnel_protocol=TunnelProtocol.NONE)
PLAIN_POD = workload("plain", tunnel_protocol=TunnelProtocol.NONE)
POD = workload("pod")
SICK_POD = workload("another", status=Health.UNHEALTHY)


@pytest.mark.parametrize(
    ("better", "worse"),
    [(POD, PLAIN_POD), (PLAIN_POD, VM), (VM, PLAIN_VM), (POD, VM), (POD, SICK_POD), (SICK_POD, PLAIN_POD)],
)
@pytest.mark.parametrize("swapped", [False, True])
def test_of_several_workloads_with_an_address_the_best_ranked_wins(
    better: Workload, worse: Workload, swapped: bool
) -> None:
    view = mesh(*((worse, better) if swapped else (better, worse)))
    assert view.workload_by_address("", IP) == better
    view.apply(gone=[("workload", better.uid)])
    assert view.workload_by_address("", IP) == worse


def test_a_host_network_workload_has_no_address_of_its_own() -> None:
    view = mesh(workload("agent", network_mode=NetworkMode.HOST_NETWORK))
    assert view.workload_by_address("", IP) is None


def test_a_replaced_workload_leaves_no_trace() -> None:
    old = behind(workload("a", "10.0.0.1", hostname="old.example", node="n1"), service())
    new = replace(old, addresses=(ip_address("10.0.0.2"),), hostname="", node="n2", services={})
    view = mesh(old, service())
    view.apply([new])
    assert view.workload_by_address("", IP) is None
    assert view.workload_by_hostname("old.example") is None
    assert view.workloads_on("n1") == ()
    assert view.endpoints("default/web.default.svc.cluster.local") == ()
    assert view.workload_by_address("", ip_address("10.0.0.2")) == new


def test_endpoints_may_come_before_their_service_and_outlive_it() -> None:
    web = service()
    end = behind(workload("a"), web)
    view = mesh(end)
    assert view.service(web.key) is None
    view.apply([web])
    assert [e.workload for e in view.endpoints(web.key)] == [end]
    view.apply(gone=[("service", web.key)])
    assert view.service(web.key) is None
    view.apply([web])
    assert [e.workload for e in view.endpoints(web.key)] == [end]


MINE = service("web", namespace="mine", canonical=False, hostname="api.example")
OTHER = service("web", namespace="other", canonical=False, hostname="api.example")
CANONICAL = service("web", namespace="zzz", hostname="api.example")
HIDDEN = service("web", namespace="aaa", hostname="api.example", visibility=Visibility.NAMESPACE)


@pytest.mark.parametrize(
    ("services", "namespace", "preferred", "expected"),
    [
        ([MINE, OTHER, CANONICAL], "mine", "", MINE),
        ([OTHER, CANONICAL], "mine", "", CANONICAL),
        ([HIDDEN, OTHER], "mine", "", OTHER),
        ([HIDDEN], "mine", "", None),
        ([HIDDEN, OTHER], "aaa", "", HIDDEN),
        ([MINE, OTHER], "third", "", MINE),
        ([MINE, OTHER], "third", "other", OTHER),
        ([MINE, CANONICAL], "third", "mine", CANONICAL),
    ],
)
def test_of_several_services_with_a_hostname_the_best_for_the_client_wins(
    services: list[Service], namespace: str, preferred: str, expected: Service | None
) -> None:
    view = mesh(*services)
    assert view.service_by_hostname("api.example", namespace, preferred) == expected
    assert view.service_by_hostname("API.example", namespace, preferred) == expected
    if not preferred:
        assert view.service_by_address("", VIP, namespace) == expected


def block(name: str, cidr: str, **changes: object) -> Service:
    network = ip_network(cidr)
    address = NetworkAddress("", network.network_address, network.prefixlen)
    return service(name, "", addresses=(address,), hostname=f"{name}.example", **changes)


WIDE = block("wide", "10.96.0.0/16")
NARROW = block("narrow", "10.96.0.0/24")
NARROW_NOT_CANONICAL = block("again", "10.96.0.0/24", canonical=False)
MINE_WIDE = block("mine", "10.0.0.0/8", namespace="mine")


@pytest.mark.parametrize(
    ("services", "expected"),
    [
        ([WIDE], WIDE),
        ([WIDE, NARROW], NARROW),
        ([NARROW_NOT_CANONICAL, NARROW], NARROW),
        ([WIDE, NARROW, MINE_WIDE], MINE_WIDE),
        ([WIDE, service("exact", "10.96.0.1")], service("exact", "10.96.0.1")),
        ([block("far", "10.97.0.0/16")], None),
        ([block("six", "fd00::/8")], None),
        ([block("hidden", "10.96.0.0/24", visibility=Visibility.NAMESPACE), WIDE], WIDE),
    ],
)
def test_address_blocks_of_services(services: list[Service], expected: Service | None) -> None:
    view = mesh(*services)
    assert view.service_by_address("", VIP, "mine") == expected
    view.apply(gone=[("service", one.key) for one in services])
    assert view.service_by_address("", VIP, "mine") is None


def selector(name: str, **changes: object) -> Authorization:
    return deny(name, (), scope=PolicyScope.WORKLOAD_SELECTOR, **changes)


def test_the_policies_of_a_workload_are_those_of_its_namespace_of_the_mesh_and_those_it_names() -> None:
    here, there = allow("here", ()), allow("there", (), namespace="other")
    everywhere = deny("everywhere", namespace="istio-system", scope=PolicyScope.GLOBAL)
    named, not_named = selector("named", namespace="istio-system"), selector("not-named")
    view = mesh(here, there, everywhere, named, not_named)
    found = view.policies_of(workload(authorization_policies=("istio-system/named", "default/lost", "default/here")))
    assert found.policies == (here, everywhere, named)
    assert found.missing == ("default/lost",)


def test_a_policy_that_changes_scope_is_found_in_the_new_place_only() -> None:
    view = mesh(allow("a", ()))
    view.apply([allow("a", (), scope=PolicyScope.WORKLOAD_SELECTOR)])
    assert view.policies_of(workload()).policies == ()


def test_a_change_names_everything_that_could_be_routed_differently() -> None:
    web = service()
    end = behind(workload("a", "10.0.0.1"), web)
    view = mesh(web)
    changes = view.apply([end])
    assert changes.workloads == {end.uid}
    assert changes.names == {workload_name(end.uid), address_name("", IP), service_name(web.key)}
    moved = view.apply([replace(end, addresses=(ip_address("10.0.0.2"),), services={})])
    assert moved.names == {
        workload_name(end.uid),
        address_name("", IP),
        address_name("", ip_address("10.0.0.2")),
        service_name(web.key),
    }
    gone = view.apply(gone=[("workload", end.uid)])
    assert gone.workloads == {end.uid}
    assert workload_name(end.uid) in gone.names


def test_a_changed_service_names_its_addresses_old_and_new_and_blocks() -> None:
    view = mesh(service("web", "10.96.0.1"))
    changes = view.apply([replace(service("web", ""), addresses=(NetworkAddress("", VIP, 24),))])
    key = "default/web.default.svc.cluster.local"
    assert changes.services == {key}
    assert changes.names == {
        service_name(key),
        hostname_name("web.default.svc.cluster.local"),
        address_name("", VIP),
        blocks_name(""),
    }


def test_equal_values_and_unknown_removals_are_no_change() -> None:
    view = mesh(service(), workload(), allow("a", ()))
    assert not view.apply([service(), workload(), allow("a", ())], [("workload", "none"), ("service", "x/y")])


def test_a_value_that_is_both_removed_and_put_stays() -> None:
    view = mesh(workload())
    assert view.apply([workload()], [("workload", workload().uid)]) == Changes()


def test_policies_count_as_changes_without_names() -> None:
    view = mesh()
    assert view.apply([allow("a", ())]).policies == {"default/a"}
    assert view.apply(gone=[("authorization", "default/a")]).policies == {"default/a"}
    assert view.policy("default/a") is None


def test_any_order_of_changes_gives_the_same_view() -> None:
    """Random puts and removals end in the view that a fresh mesh of the survivors has."""
    random = Random(3)
    web, api = service("web", "10.96.0.1"), block("api", "10.96.0.0/24")
    names = [f"w{i}" for i in range(6)]
    for _ in range(150):
        view = Mesh()
        alive: dict[tuple[str, str], Workload | Service] = {}
        for _ in range(30):
            name = random.choice(names)
            value = behind(
                workload(name, random.choice(("10.0.0.1", "10.0.0.2", "10.0.0.1,fd00::1")), node=random.choice("ab")),
                *random.sample([web, api], random.randint(0, 2)),
            )
            if random.random() < 0.3:
                view.apply(gone=[("workload", value.uid)])
                alive.pop(("workload", value.uid), None)
            elif random.random() < 0.3:
                one = random.choice((web, api))
                view.apply([one])
                alive["service", one.key] = one
            else:
                view.apply([value])
                alive["workload", value.uid] = value
        fresh = mesh(*alive.values())
        for ip in ("10.0.0.1", "10.0.0.2", "fd00::1"):
            address = ip_address(ip)
            assert view.workload_by_address("", address) == fresh.workload_by_address("", address)
        for key in (web.key, api.key):
            assert view.endpoints(key) == fresh.endpoints(key)
        assert view.service_by_address("", VIP, "x") == fresh.service_by_address("", VIP, "x")
        assert [view.workloads_on(node) for node in "ab"] == [fresh.workloads_on(node) for node in "ab"]


def test_a_pod_is_found_by_its_own_name_among_others_of_its_node_and_namespace() -> None:
    one, other = workload("one", "10.0.0.1"), workload("other", "10.0.0.2")
    elsewhere = workload("one", "10.0.0.3", namespace="x")
    view = mesh(other, elsewhere, one)
    assert view.local_workload("default", "one", "n1") == one
    assert view.local_workload("default", "other") == other
    assert view.local_workload("default", "nobody", "n1") is None
    assert view.local_workload("default", "one", "n2") is None


def test_what_can_be_asked_for_by_name_is_known_when_it_is_there() -> None:
    view = mesh(workload("one", "10.0.0.1"), service("web", "10.96.0.1"))
    there = ["address:/10.0.0.1", "address:/10.96.0.1", "workload:Kubernetes//Pod/default/one"]
    assert all(view.knows(name) for name in [*there, "service:default/web.default.svc.cluster.local"])
    missing = ["address:/10.0.0.9", "address:east/10.0.0.1", "workload:nobody", "service:default/nobody.example"]
    assert not any(view.knows(name) for name in missing)
    assert view.knows("hostname:nobody.example")
    assert view.knows("blocks:")


def test_a_service_that_is_gone_has_no_name_left() -> None:
    web = service("web", "10.96.0.1")
    view = mesh(web)
    view.apply(gone=[("service", web.key)])
    assert view.service_by_hostname(web.hostname, "default") is None
    assert view.services_by_hostname(web.hostname) == ()


def test_a_service_has_the_ports_that_it_or_one_of_its_endpoints_names() -> None:
    web, other = service("web", "10.96.0.1", (80, 8080)), service("other", "10.96.0.2", (82, 82))
    world = mesh(
        web,
        other,
        behind(workload("a", "10.0.1.1"), web, other),
        behind(workload("b", "10.0.1.2"), web, ports=((81, 9090),)),
    )
    assert [port for port in range(75, 90) if world.has_port(web, port)] == [80, 81]
    assert [port for port in range(75, 90) if world.has_port(other, port)] == [82]
