"""What a policy is about besides TCP is read from its annotation; what cannot be read closes, and is said."""

from __future__ import annotations

import pytest

from tests.ambient.control.test_derive_policy import one


@pytest.mark.parametrize(
    ("written", "wanted"),
    [("udp", {"udp"}), ("udp, ICMP", {"udp", "icmp"}), ("tcp", set()), ("", set()), ("tcp,icmp", {"icmp"})],
)
def test_an_annotation_says_what_a_policy_is_about_besides_tcp(written: str, wanted: set[str]) -> None:
    found, condition = one({"rules": [{}]}, annotations={"ambient.mesh/protocols": written})
    assert found is not None
    assert found.datagrams == wanted
    assert condition.message == "attached to ztunnel"


def test_protocols_that_are_none_are_said_and_the_policy_holds_for_all() -> None:
    found, condition = one({"rules": [{}]}, annotations={"ambient.mesh/protocols": "udp,sctp"})
    assert found is not None
    assert found.datagrams == {"udp", "icmp"}
    assert "annotation ambient.mesh/protocols is 'udp,sctp', which is no list of tcp, udp and icmp" in condition.message
