"""The way to a waypoint: its proxies at their tunnel port, and nobody else's certificate will do."""

from __future__ import annotations

import json

from ambient.waypoint.door import Through
from ambient.waypoint.front import View
from ambient.waypoint.through import through_resources
from ambient.waypoint.tls import NOBODY
from ambient.waypoint.typed import CLUSTER_TYPE, ENDPOINT_TYPE, LISTENER_TYPE
from ambient.waypoint.wire import encode

VIEW = View("shop", "front", ("cluster.local",))
WHO = "spiffe://cluster.local/ns/shop/sa/waypoint"


def test_its_proxies_are_dialled_at_the_tunnel_port_and_have_to_be_its_own() -> None:
    made = {url: content for url, _, content in through_resources(Through("shop/wp", ("10.1.0.8",), (WHO,)), VIEW)}
    for url, content in made.items():
        encode(url, "through|shop/wp", content)
    (part,) = made[ENDPOINT_TYPE]["endpoints"][0]["lb_endpoints"]
    assert part["endpoint"]["address"]["socket_address"] == {"address": "10.1.0.8", "port_value": 15008}
    text = json.dumps(made[CLUSTER_TYPE])
    assert f'{{"exact": "{WHO}"}}' in text
    assert '"prefix"' not in text
    assert made[LISTENER_TYPE]["filter_chains"][0]["filters"][-1]["typed_config"]["cluster"] == "through|shop/wp"


def test_a_waypoint_that_nobody_is_known_of_is_nobody() -> None:
    made = {url: content for url, _, content in through_resources(Through("shop/wp", (), ()), VIEW)}
    assert json.dumps(made[CLUSTER_TYPE]).count('"exact"') == 1
    assert f'"exact": "{NOBODY}"' in json.dumps(made[CLUSTER_TYPE])
