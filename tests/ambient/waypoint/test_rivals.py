"""Names that several services claim: one has it or nobody, and no table holds it twice."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from ambient.waypoint.front import Front
from ambient.waypoint.resources import resources
from ambient.waypoint.tunnel import CONNECT_ROUTES
from ambient.waypoint.typed import ROUTE_TYPE
from tests.support.waypoint_views import RULE, front, policy, view

WEB = front(policy("deny", "DENY", RULE))
FIRST = f"{WEB.addresses[0]}:80"


def led(*fronts: Front) -> dict[str, str]:
    """Where each name in the table of CONNECT routes leads."""
    found = list(resources(view(*fronts)))
    assert max(Counter((url, name) for url, name, _ in found).values()) == 1
    (table,) = [content for url, name, content in found if (url, name) == (ROUTE_TYPE, CONNECT_ROUTES)]
    domains = [(domain, host["name"]) for host in table["virtual_hosts"] for domain in host["domains"]]
    assert len(dict(domains)) == len(domains)
    assert all(host["domains"] for host in table["virtual_hosts"])
    return dict(domains)


def entry(hostname: str, namespace: str, rank: int) -> Front:
    return replace(WEB, hostname=hostname, namespace=namespace, rank=rank, policies=())


def test_an_address_is_that_of_the_lowest_rank_and_each_keeps_its_name() -> None:
    for fronts in ((WEB, entry("a.example", "evil", 2)), (entry("a.example", "evil", 2), WEB)):
        found = led(*fronts)
        assert found[FIRST] == f"service|80|{WEB.hostname}"
        assert found["a.example:80"] == "service|80|a.example"


def test_an_address_that_namespaces_dispute_leads_nowhere() -> None:
    assert FIRST not in led(entry("a.example", "a", 2), entry("b.example", "b", 2))


def test_two_hosts_of_one_namespace_share_an_address_and_the_first_has_it() -> None:
    found = led(entry("a.example", "shop", 1), entry("b.example", "shop", 1))
    assert (found[FIRST], found["b.example:80"]) == ("service|80|a.example", "service|80|b.example")


def test_nobody_takes_the_place_of_a_service_by_its_host_name() -> None:
    rival = entry(WEB.hostname, "zzz", 3)
    tables = {name: content for url, name, content in resources(view(WEB, rival)) if url == ROUTE_TYPE}
    alone = {name: content for url, name, content in resources(view(WEB)) if url == ROUTE_TYPE}
    assert tables == alone


def test_nobody_takes_the_place_of_what_a_route_leads_to() -> None:
    found = list(resources(replace(view(entry(WEB.hostname, "zzz", 3)), beyond=(WEB,))))
    assert found == list(resources(replace(view(), beyond=(WEB,))))
