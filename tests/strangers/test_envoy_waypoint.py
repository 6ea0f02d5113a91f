"""Envoy itself takes every resource that a waypoint is told."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ambient.waypoint.bootstrap import Identification, bootstrap
from ambient.waypoint.front import Protocol, View
from ambient.waypoint.ingress import gateway_resources
from ambient.waypoint.resources import resources
from ambient.waypoint.typed import CLUSTER_TYPE, LISTENER_TYPE, ROUTE_TYPE, SECRET_TYPE, Message, Named
from tests.ambient.waypoint.test_routes import routed
from tests.ambient.waypoint.test_streams import CANARY, NAMED, behind
from tests.support.envoy_judge import judged
from tests.support.gateway_views import EVERY_DOOR
from tests.support.waypoint_views import (
    EVERY_DIRECT,
    EVERY_EXPORT,
    EVERY_KIND,
    EVERY_LIMIT,
    EVERY_ORIGINATION,
    EVERY_TOKEN,
    EVERY_WILD,
    OTLP_SPANS,
    OWN_EXPORTS,
    view,
)


def inline(value: Any, routes: dict[str, Message]) -> Any:
    """With route configurations in the place of their names."""
    if isinstance(value, list):
        return [inline(one, routes) for one in value]
    if not isinstance(value, dict):
        return value
    made = {key: inline(one, routes) for key, one in value.items() if key != "rds"}
    return {**made, "route_config": routes[value["rds"]["route_config_name"]]} if "rds" in value else made


def kept(value: Any) -> Any:
    """With secrets of this file in the place of those that come by discovery: Envoy falls when it validates a cluster
    that waits for them."""
    if isinstance(value, list):
        return [kept(one) for one in value]
    if not isinstance(value, dict):
        return value
    return {key: kept(one) for key, one in value.items() if key != "sds_config" or "ads" not in one}


def validate(found: list[Named], folder: Path, *, spoil: bool = False) -> subprocess.CompletedProcess[str]:
    who = Identification("shop", "waypoint", "waypoint-1", "10.1.1.1")
    file = bootstrap(who, agent_socket=str(folder / "a"), admin_socket=str(folder / "b"))
    routes = {name: content for url, name, content in found if url == ROUTE_TYPE}
    static = file["static_resources"]
    static["clusters"] += [kept(content) for url, _, content in found if url == CLUSTER_TYPE]
    static["secrets"] = [content for url, _, content in found if url == SECRET_TYPE]
    static["listeners"] += [inline(content, routes) for url, _, content in found if url == LISTENER_TYPE]
    if spoil:
        static["listeners"][-1]["filter_chains"][0]["filters"].append({"name": "no.such.filter"})
    return judged(file, folder)


TOLD = {"nothing": view(), "everything": EVERY_KIND, "tokens": EVERY_TOKEN, "limits": EVERY_LIMIT}
TOLD |= {"exports": EVERY_EXPORT, "spans": OTLP_SPANS, "own": OWN_EXPORTS, "routes": routed(), "direct": EVERY_DIRECT}
TOLD |= {"origination": EVERY_ORIGINATION, "wild": EVERY_WILD}
TOLD["streams"] = view(behind(CANARY, NAMED), replace(behind(NAMED, protocol=Protocol.AUTO), hostname="any.example"))


@pytest.mark.parametrize("told", TOLD.values(), ids=TOLD)
def test_envoy_takes_the_whole_configuration(told: View, tmp_path: Path) -> None:
    done = validate(list(resources(told)), tmp_path)
    assert done.returncode == 0, done.stderr


def test_envoy_takes_what_a_gateway_is_told(tmp_path: Path) -> None:
    done = validate(list(gateway_resources(EVERY_DOOR)), tmp_path)
    assert done.returncode == 0, done.stderr


def test_what_envoy_does_not_take_is_seen_here(tmp_path: Path) -> None:
    assert validate(list(resources(EVERY_KIND)), tmp_path, spoil=True).returncode != 0
