"""Settings come from the environment, with Istio's names and rules."""

from __future__ import annotations

import pytest

from ambient.errors import InvalidInput
from ztunnel.config import drain_deadline, read_config, system_resolvers


def test_defaults_are_istios() -> None:
    config = read_config({"NODE_NAME": "n1"})
    assert (config.node, config.cluster_id, config.trust_domain) == ("n1", "Kubernetes", "cluster.local")
    assert config.xds_address == config.ca_address == "https://localhost:15012"
    assert (config.admin_port, config.stats_port, config.ready_port) == (15000, 15020, 15021)
    assert (config.secret_ttl_s, config.drain_s, config.dns, config.ipv6) == (86400, 5.0, True, True)


def test_the_ca_is_where_discovery_is_unless_named() -> None:
    config = read_config({"XDS_ADDRESS": "10.0.0.1:15012", "XDS_ROOT_CA": "/r", "ALT_XDS_HOSTNAME": "h"})
    assert (config.ca_address, config.ca_root_ca, config.alt_ca_hostname) == ("https://10.0.0.1:15012", "/r", "h")
    config = read_config({"XDS_ADDRESS": "10.0.0.1:15012", "CA_ADDRESS": "https://ca:1", "CA_ROOT_CA": "/c"})
    assert (config.ca_address, config.ca_root_ca) == ("https://ca:1", "/c")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("XDS_ADDRESS", "https://nowhere"),
        ("XDS_ADDRESS", "ftp://h:1"),
        ("CA_ADDRESS", "https://h:99999"),
        ("SECRET_TTL", "1 day"),
        ("SECRET_TTL", "0"),
        ("IPV6_ENABLED", "yes"),
        ("DNS_CAPTURE", "1"),
        ("LOG_FORMAT", "xml"),
        ("LOG_LEVEL", "loud"),
        ("RUST_LOG", "dns"),
        ("AMBIENT_METRICS_SERIES", "0"),
        ("ZTUNNEL_WORKER_THREADS", "-1"),
        ("ZTUNNEL_WORKER_THREADS", "many"),
        ("AMBIENT_RESOLVERS", "10.0.0.1,dns"),
        ("AMBIENT_ADMIN_PORT", "0"),
        ("AMBIENT_OUTBOUND", "NONE"),
        ("XDS_ON_DEMAND", "maybe"),
        ("AMBIENT_COMPAT", "envoy"),
        ("XDS_ON_DEMAND", "true"),
        ("ISTIO_METAJSON_LABELS", "{"),
        ("XDS_HEADER_A B", "x"),
        ("CA_HEADER_X", "line\nbreak"),
        ("AMBIENT_WAYPOINTS", "no"),
        ("ENABLE_ORIG_SRC", "yes"),
    ],
)
def test_a_value_that_cannot_be_understood_is_refused_by_name(name: str, value: str) -> None:
    with pytest.raises(InvalidInput, match=name):
        read_config({name: value})


def test_what_traffic_does_by_default_and_what_settings_make_of_it() -> None:
    config = read_config({})
    assert (config.registry_only, config.only_waypoints, config.orig_src, config.preferred_namespace) == (
        *(False, True, None, ""),
    )
    changed = read_config(
        {
            "AMBIENT_OUTBOUND": "REGISTRY_ONLY",
            "AMBIENT_WAYPOINTS": "istio",
            "ENABLE_ORIG_SRC": "false",
            "PREFERED_SERVICE_NAMESPACE": "shop",
        }
    )
    assert (changed.registry_only, changed.only_waypoints, changed.orig_src, changed.preferred_namespace) == (
        *(True, False, False, "shop"),
    )
    assert read_config({"ENABLE_ORIG_SRC": "true"}).orig_src is True


def test_durations_are_read_as_everywhere_in_the_project() -> None:
    assert read_config({"SECRET_TTL": "1h30m"}).secret_ttl_s == 5400


@pytest.mark.parametrize(
    ("env", "wanted"),
    [
        ({}, "info"),
        ({"RUST_LOG": "info,hickory_server::server=off"}, "hickory_server::server=off,info"),
        ({"RUST_LOG": "debug", "LOG_LEVEL": "warn,access=off"}, "access=off,warn"),
    ],
)
def test_the_log_filter_is_istios_unless_ours_says_otherwise(env: dict[str, str], wanted: str) -> None:
    assert read_config(env).log_level == wanted


@pytest.mark.parametrize(("grace", "deadline"), [("30", 25.0), ("11", 6.0), ("10", 9.0), ("1", 1.0), ("", 5.0)])
def test_the_drain_deadline_follows_the_grace_period_as_istios_does(grace: str, deadline: float) -> None:
    assert drain_deadline({"TERMINATION_GRACE_PERIOD_SECONDS": grace}) == deadline


def test_an_explicit_deadline_wins() -> None:
    env = {"TERMINATION_GRACE_PERIOD_SECONDS": "30", "CONNECTION_TERMINATION_DEADLINE": "2s"}
    assert drain_deadline(env) == 2.0


def test_workers_may_be_a_share_of_the_cores() -> None:
    assert read_config({"ZTUNNEL_WORKER_THREADS": "3"}).workers == 3
    assert read_config({"ZTUNNEL_WORKER_THREADS": "0"}).workers == read_config({}).workers
    assert read_config({"ZTUNNEL_WORKER_THREADS": "1%"}).workers == 1


def test_resolvers_come_from_resolv_conf_text() -> None:
    text = "# x\nsearch a b\nnameserver 10.96.0.10\nnameserver fe80::1%eth0\nnameserver what\nnameserver\n"
    assert system_resolvers(text) == ("10.96.0.10", "fe80::1")


def test_metadata_is_passed_on() -> None:
    config = read_config({"ISTIO_META_CLUSTER_ID": "west", "ISTIO_META_X": "y"})
    assert config.cluster_id == "west"
    assert config.metadata == (("CLUSTER_ID", "west"), ("X", "y"))


def test_json_metadata_and_headers_are_read() -> None:
    config = read_config({"ISTIO_METAJSON_L": '{"a": 1}', "XDS_HEADER_X_TEAM": "mesh", "CA_HEADER_KEY": "k"})
    assert config.metadata == (("L", {"a": 1}),)
    assert (config.xds_headers, config.ca_headers) == ((("x_team", "mesh"),), (("key", "k"),))


def test_discovery_on_demand_goes_only_without_the_dns_proxy() -> None:
    assert read_config({"XDS_ON_DEMAND": "true", "DNS_CAPTURE": "false"}).on_demand
    assert not read_config({}).on_demand


def test_laxness_has_to_be_asked_for() -> None:
    assert not read_config({}).lax
    assert read_config({"AMBIENT_COMPAT": "istio"}).lax
