"""Settings of the agent: what may be left out, and what is refused by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from ambient.agent.settings import AgentSettings
from ambient.datapath.layout import Option
from ambient.errors import InvalidInput
from ambient.settings import read_settings

LEAST = {
    "NODE_NAME": "n1",
    "AMBIENT_OBJECTS": "/run/objects",
    "AMBIENT_POD_NETNS": "/run/netns/{namespace}.{name}.{uid}",
}


def test_the_least_that_must_be_given() -> None:
    settings = read_settings(AgentSettings, LEAST)
    assert settings.zds_socket == Path("/var/run/ztunnel/ztunnel.sock")
    assert (settings.custody_socket, settings.kubelet_cgroup, settings.xds) == (None, None, "")
    assert settings.drain_s == 300.0
    assert settings.sweep_s == 4.0
    assert settings.excluded_namespaces == {"kube-system"}
    assert str(settings.listen) == "127.0.0.1:15099"


@pytest.mark.parametrize("name", LEAST)
def test_what_is_missing_is_named(name: str) -> None:
    with pytest.raises(InvalidInput, match=name):
        read_settings(AgentSettings, {key: value for key, value in LEAST.items() if key != name})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("AMBIENT_POD_NETNS", "/run/netns/{pod}"),
        ("AMBIENT_POD_NETNS", "/run/netns/{0}"),
        ("AMBIENT_POD_NETNS", "/run/netns/{name"),
        ("AMBIENT_LOADER", "magic"),
        ("AMBIENT_CAPTURE", "iptables"),
        ("DNS_CAPTURE", "yes"),
        ("XDS_ADDRESS", "ftp://somewhere"),
        ("AMBIENT_RELEASE_DRAIN", "soon"),
        ("AMBIENT_AGENT_LISTEN", "localhost"),
    ],
)
def test_what_cannot_be_understood_is_refused_by_name(name: str, value: str) -> None:
    with pytest.raises(InvalidInput, match=name):
        read_settings(AgentSettings, {**LEAST, name: value})


def test_what_is_set_of_the_kernels_options_leaves_the_others() -> None:
    found = Option.MARK_ALONE | Option.DROP_CLEAR
    default = read_settings(AgentSettings, LEAST)
    assert default.options(found) == Option.MARK_ALONE
    strict = read_settings(AgentSettings, {**LEAST, "AMBIENT_REFUSE_INBOUND": "silence", "AMBIENT_CLEAR_TEXT": "drop"})
    assert strict.options(Option.MARK_ALONE) == Option.MARK_ALONE | Option.SILENT_IN | Option.DROP_CLEAR
