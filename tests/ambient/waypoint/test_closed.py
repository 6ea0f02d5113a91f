"""What is told of a port that is closed: nothing of what people wrote, and nothing that lets anything pass."""

from __future__ import annotations

import json
from typing import Any

from ambient.waypoint.closed import Closed, closed_table, differing, port_of
from ambient.waypoint.front import View
from ambient.waypoint.resources import resources
from ambient.waypoint.tunnel import CONNECT_ROUTES
from ambient.waypoint.typed import LISTENER_TYPE, ROUTE_TYPE
from tests.support.waypoint_views import BELIEVED, RULE, front, policy, view

HOST = "web.shop.svc.cluster.local"
WEB = f"service|80|{HOST}"
TOLD = view(front(policy("words", "DENY", RULE), tokens=BELIEVED), front(name="other"))


def told(closed: Closed, told: View = TOLD) -> dict[tuple[str, str], Any]:
    return {(url, name): content for url, name, content in resources(told, closed)}


def test_a_closed_port_answers_every_request_and_every_connect_itself() -> None:
    before, now = told(Closed()), told(Closed(shut=frozenset({WEB})))
    assert before.keys() == now.keys()
    assert now[ROUTE_TYPE, WEB] == closed_table(WEB)
    connect = {host["name"]: host for host in now[ROUTE_TYPE, CONNECT_ROUTES]["virtual_hosts"]}
    assert connect[WEB]["routes"][0]["direct_response"]["status"] == 503
    listener = json.dumps(now[LISTENER_TYPE, WEB])
    assert "issuer.example.com" in json.dumps(before[LISTENER_TYPE, WEB])
    assert "issuer.example.com" not in listener


def test_ports_beside_it_are_as_they_were() -> None:
    before, now = told(Closed()), told(Closed(shut=frozenset({WEB})))
    assert {key for key in before if before[key] != now[key]} == {
        (LISTENER_TYPE, WEB),
        (ROUTE_TYPE, WEB),
        (ROUTE_TYPE, CONNECT_ROUTES),
    }


def test_an_unlisted_port_is_in_no_table_and_leaves_its_names_to_nobody() -> None:
    before, now = (told(closed)[ROUTE_TYPE, CONNECT_ROUTES] for closed in (Closed(), Closed(unlisted=frozenset({WEB}))))
    names, left = ({host["name"]: host["domains"] for host in table["virtual_hosts"]} for table in (before, now))
    assert names.pop(WEB)
    assert left == names
    assert differing(before, now) == {WEB}
    assert differing(now, before) == frozenset()


def test_which_port_a_resource_is_for() -> None:
    assert port_of(WEB) == port_of(f"inbound-vip|80|http|{HOST}") == port_of(f"inbound-vip|80|http/v1|{HOST}") == WEB
    assert port_of(CONNECT_ROUTES) == port_of("connect_terminate") == ""
