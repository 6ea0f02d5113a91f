"""Settings: text in, frozen values out, every refusal names its variable."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv6Address
from pathlib import Path

import pytest

from ambient import settings
from ambient.errors import InvalidInput
from ambient.model.address import Endpoint
from ambient.settings import read_settings, setting


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    node: str = setting("NODE_NAME", settings.text)
    ttl_s: float = setting("TTL", settings.duration, "24h")
    window: int = setting("WINDOW", settings.size, "4Mi")
    ipv6: bool = setting("IPV6", settings.boolean, "true")
    listen: Endpoint = setting("LISTEN", settings.endpoint, ":15012")
    workers: int = setting("WORKERS", settings.integer(0, 64), "0")
    server: str = setting("SERVER", settings.target, "https://istiod.istio-system.svc:15012")
    form: str = setting("FORM", settings.choice("json", "plain"), "plain")
    state: Path | None = setting("STATE", settings.optional_path, "none")


def test_defaults_are_parsed_like_given_text() -> None:
    sample = read_settings(Sample, {"NODE_NAME": "n1"})
    assert sample.ttl_s == 86400
    assert sample.window == 4194304
    assert sample.listen == Endpoint(IPv6Address("::"), 15012)
    assert sample.server == "istiod.istio-system.svc:15012"
    assert sample.state is None


def test_port_zero_lets_the_kernel_choose() -> None:
    assert settings.endpoint("127.0.0.1:0").port == 0
    assert settings.endpoint(":0").port == 0


def test_a_missing_required_variable_is_named() -> None:
    with pytest.raises(InvalidInput, match="missing setting: NODE_NAME"):
        read_settings(Sample, {})


def test_an_empty_variable_counts_as_not_set() -> None:
    assert read_settings(Sample, {"NODE_NAME": "n1", "FORM": ""}).form == "plain"


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        ("TTL", "tomorrow"),
        ("TTL", "0s"),
        ("TTL", "-5s"),
        ("TTL", "5s5"),
        ("WINDOW", "4 Mi"),
        ("IPV6", "True"),
        ("IPV6", "1"),
        ("LISTEN", "host:1"),
        ("LISTEN", "1.2.3.4:70000"),
        ("LISTEN", "::1:80"),
        ("WORKERS", "65"),
        ("WORKERS", "²"),
        ("SERVER", "http://istiod:15012"),
        ("SERVER", "https://istiod"),
        ("SERVER", "https://istiod:15012/path"),
        ("FORM", "xml"),
        ("NODE_NAME", "a\nb"),
    ],
)
def test_an_invalid_value_is_refused_by_the_name_of_its_variable(variable: str, text: str) -> None:
    with pytest.raises(InvalidInput, match=f"invalid setting: {variable}: "):
        read_settings(Sample, {"NODE_NAME": "n1", variable: text})


@pytest.mark.parametrize(
    ("text", "seconds"), [("1m30s", 90.0), ("250ms", 0.25), ("86400", 86400.0), ("1.5h", 5400.0), ("10us", 1e-5)]
)
def test_durations(text: str, seconds: float) -> None:
    assert settings.duration(text) == pytest.approx(seconds)


def test_a_misspelt_variable_of_a_closed_prefix_is_refused_and_foreign_ones_are_not() -> None:
    environment = {"NODE_NAME": "n1", "AMBIENT_LODER": "auto", "PATH": "/bin"}
    assert read_settings(Sample, environment).node == "n1"
    assert read_settings(Sample, environment, closed=("AMBIENT_",), foreign=("AMBIENT_LODER",)).node == "n1"
    with pytest.raises(InvalidInput, match="unknown setting: AMBIENT_LODER"):
        read_settings(Sample, environment, closed=("AMBIENT_",))
