"""DNS answers from the mesh: which names are ours and what they resolve to."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address
from typing import Any

import pytest

from ambient.model.mesh import Value, hostname_name, service_name
from ambient.model.names import Resolution, aliases, resolve_name, wildcards
from ambient.model.workload import Health, HealthPolicy, LoadBalancing, NetworkAddress, Service, Visibility
from tests.support.builders import behind, mesh, service, workload

DOMAIN = "cluster.local"
CLIENT = workload("client", namespace="shop")
WEB = service("web", "10.96.0.1,fd96::1", namespace="shop")
DB = service("db", "10.96.0.2", namespace="data")
HEADLESS = service("peers", "", namespace="data")
ONE = behind(workload("peer-0", "10.0.0.5,fd00::5", namespace="data"), HEADLESS)
TWO = behind(workload("peer-1", "10.0.0.6", namespace="data"), HEADLESS)
SICK = behind(workload("peer-2", "10.0.0.7", namespace="data", status=Health.UNHEALTHY), HEADLESS)
OUTSIDE = service("ext", "240.0.0.1", namespace="shop", hostname="api.example.com")
WILD = service("wild", "240.0.0.2", namespace="shop", hostname="*.example.com")
BARE = service("bare", "", namespace="shop", hostname="no-address.example.com")
VM = replace(workload("vm", "10.9.9.9"), hostname="vm.example.com")
PUBLIC_WORLD: tuple[Value, ...] = (WEB, DB, HEADLESS, ONE, TWO, SICK, OUTSIDE, WILD, BARE, VM)


def ask(name: str, qtype: str = "A", *world: Value, **options: Any) -> Resolution:
    return resolve_name(mesh(*(world or PUBLIC_WORLD)), CLIENT, name, qtype, DOMAIN, **options)


@pytest.mark.parametrize(
    ("name", "qtype", "expected"),
    [
        ("web", "A", ["10.96.0.1"]),
        ("web", "AAAA", ["fd96::1"]),
        ("WEB.Shop.svc.cluster.local", "A", ["10.96.0.1"]),
        ("web.shop.svc.cluster.local.", "A", ["10.96.0.1"]),
        ("web.shop.svc", "A", ["10.96.0.1"]),
        ("web.shop", "A", ["10.96.0.1"]),
        ("db.data", "A", ["10.96.0.2"]),
        ("db.data", "AAAA", []),
        ("db.data.svc.cluster.local", "A", ["10.96.0.2"]),
        ("peers.data", "A", ["10.0.0.5", "10.0.0.6"]),
        ("peers.data", "AAAA", ["fd00::5"]),
        ("peer-0.peers.data.svc.cluster.local", "A", ["10.0.0.5"]),
        ("peer-0.peers.data.svc", "AAAA", ["fd00::5"]),
        ("peer-1.peers.data", "A", ["10.0.0.6"]),
        ("api.example.com", "A", ["240.0.0.1"]),
        ("other.example.com", "A", ["240.0.0.2"]),
        ("a.b.example.com", "A", ["240.0.0.2"]),
        ("vm.example.com", "A", ["10.9.9.9"]),
        ("api.example.com.shop.svc.cluster.local", "A", ["240.0.0.1"]),
        ("db.data.shop.svc.cluster.local", "A", ["10.96.0.2"]),
        ("db.data.svc.cluster.local.cluster.local", "A", ["10.96.0.2"]),
    ],
)
def test_known_names(name: str, qtype: str, expected: list[str]) -> None:
    found = ask(name, qtype)
    assert found.known
    assert [str(ip) for ip in found.addresses] == expected


@pytest.mark.parametrize(
    ("name", "qtype"),
    [
        ("db", "A"),
        ("db.shop", "A"),
        ("example.com", "A"),
        ("nothing.example.org", "A"),
        ("peer-9.peers.data.svc.cluster.local", "A"),
        ("web.shop.svc.other.local", "A"),
        ("svc.cluster.local", "A"),
        ("cluster.local", "A"),
        ("", "A"),
        (".", "A"),
        ("web", "SRV"),
        ("web", "MX"),
        ("web", "ANY"),
    ],
)
def test_names_that_are_asked_upstream(name: str, qtype: str) -> None:
    assert not ask(name, qtype, WEB, DB, HEADLESS, ONE).known


def test_a_service_without_address_outside_the_cluster_domain_is_asked_upstream() -> None:
    assert not ask("no-address.example.com", "A", BARE).known


def test_an_endpoint_of_which_nothing_was_understood_is_nobodys_answer() -> None:
    assert [str(ip) for ip in ask("peers.data", "A", HEADLESS, ONE, replace(TWO, refused="junk")).addresses] == [
        "10.0.0.5"
    ]


def test_what_only_looks_like_a_service_of_the_cluster_is_headless_too() -> None:
    """Discovery does not say which registry a service is from."""
    entry = replace(HEADLESS, canonical=False, hostname="entry.data.svc.cluster.local")
    vm = behind(workload("vm", "10.9.9.8", namespace="data"), entry)
    assert [str(ip) for ip in ask("entry.data", "A", entry, vm).addresses] == ["10.9.9.8"]


def test_a_headless_service_without_endpoints_is_known_and_empty() -> None:
    assert ask("peers.data", "A", HEADLESS) == replace(ask("peers.data", "A", HEADLESS), known=True, addresses=())


def test_unready_endpoints_of_a_headless_service_show_only_when_it_publishes_them() -> None:
    assert ask("peers.data", "A", HEADLESS, SICK).addresses == ()
    publishing = replace(HEADLESS, load_balancing=LoadBalancing(health_policy=HealthPolicy.ALLOW_ALL))
    assert ask("peers.data", "A", publishing, SICK).addresses == SICK.addresses


def test_a_canonical_name_is_given_only_when_a_search_suffix_was_taken_off() -> None:
    assert ask("web").canonical == ""
    assert ask("api.example.com").canonical == ""
    assert ask("api.example.com.shop.svc.cluster.local").canonical == "api.example.com"


def test_without_ipv6_a_known_name_has_no_ipv6_addresses() -> None:
    found = ask("web", "AAAA", ipv6=False)
    assert (found.known, found.addresses) == (True, ())


def test_addresses_of_other_networks_are_not_given() -> None:
    far = replace(DB, addresses=(NetworkAddress("east", ip_address("10.96.0.2")),))
    assert not ask("db.data", "A", far).known


MINE = service("api", "240.0.0.1", namespace="shop", hostname="api.example", canonical=False)
THEIRS = service("api", "240.0.0.2", namespace="data", hostname="api.example", canonical=False)
PREFERRED = service("api", "240.0.0.3", namespace="zoo", hostname="api.example", canonical=False)


@pytest.mark.parametrize(
    ("world", "expected"),
    [
        ((MINE, THEIRS), "240.0.0.1"),
        ((THEIRS, PREFERRED), "240.0.0.3"),
        ((replace(THEIRS, canonical=True), PREFERRED), "240.0.0.2"),
        ((replace(THEIRS, visibility=Visibility.NAMESPACE), PREFERRED), "240.0.0.3"),
    ],
)
def test_of_several_services_with_the_name_the_best_for_the_client_answers(
    world: tuple[Service, ...], expected: str
) -> None:
    assert [str(ip) for ip in ask("api.example", "A", *world, preferred_namespace="zoo").addresses] == [expected]


def test_an_exact_name_wins_over_a_wildcard_and_a_narrow_wildcard_over_a_wide_one() -> None:
    narrow = service("narrow", "240.0.0.3", namespace="shop", hostname="*.b.example.com")
    assert [str(ip) for ip in ask("x.b.example.com", "A", WILD, narrow).addresses] == ["240.0.0.3"]
    assert list(wildcards("www.example.com")) == ["www.example.com", "*.example.com", "*.com"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a", ["a", "a.shop.svc.cluster.local"]),
        ("a.b", ["a.b", "a.b.svc.cluster.local", "a.b.shop.svc.cluster.local"]),
        ("a.b.svc", ["a.b.svc", "a.b.svc.cluster.local", "a.b.svc.svc.cluster.local"]),
        ("a.b.c", ["a.b.c", "a.b.c.svc.cluster.local"]),
        ("a.b.c.svc", ["a.b.c.svc", "a.b.c.svc.cluster.local"]),
        ("a.b.c.d", ["a.b.c.d"]),
        ("a.b.c.d.e", ["a.b.c.d.e"]),
    ],
)
def test_what_a_short_name_may_stand_for(name: str, expected: list[str]) -> None:
    assert [alias for alias, _ in aliases(name, "shop", DOMAIN)] == expected


def test_search_suffixes_are_taken_off_after_the_name_itself_was_tried() -> None:
    tried = list(aliases("a.shop.svc.cluster.local", "shop", DOMAIN))
    assert tried[0] == ("a.shop.svc.cluster.local", False)
    assert ("a", True) in tried
    assert len({alias for alias, _ in tried}) == len(tried)


def test_an_answer_names_what_it_was_made_from() -> None:
    found = ask("peers.data")
    assert service_name(HEADLESS.key) in found.depends
    assert hostname_name("peers.data") in ask("peers.data", "A", WEB).depends
