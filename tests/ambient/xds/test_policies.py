"""Policies on the wire: understood whole or refused whole."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_network
from typing import Any

import pytest
from google.protobuf.wrappers_pb2 import BytesValue, StringValue

from ambient.errors import InvalidInput
from ambient.model.policy import Action, Authorization, Datagram, PolicyScope
from ambient.xds.codec import AUTHORIZATION_TYPE, Refusal, decode, name_of
from ambient.xds.policies import NUMBERS, closed_stand_in, encode
from ambient.xds.policies import decode as decode_policy
from ambient.xds.wire import message
from tests.support.builders import allow
from tests.support.discovery import STRANGE_FIELD, policy_wire, setting_of


def _match(**fields: Any) -> Callable[[Any], None]:
    def change(wire: Any) -> None:
        for name, value in fields.items():
            getattr(wire.rules[0].clauses[0].matches[0], name).extend(value)

    return change


def _address(raw: bytes, length: int) -> Any:
    return message("istio.security.Address")(address=raw, length=length)


BAD_POLICIES = {
    "scope 3": setting_of("", scope=3),
    "action 2": setting_of("", action=2),
    "must both be there": setting_of("", name=""),
    "content is named 'other/p'": setting_of("", namespace="other"),
    "destination_ports 65536": _match(destination_ports=[65536]),
    "source_ips has prefix length 33": _match(source_ips=[_address(b"abcd", 33)]),
    "not_destination_ips has prefix length 129": _match(not_destination_ips=[_address(b"a" * 16, 129)]),
    "destination_ips has 0 bytes": _match(destination_ips=[_address(b"", 0)]),
    "namespaces has no kind": _match(namespaces=[message("istio.security.StringMatch")()]),
    "needs a namespace and": _match(service_accounts=[message("istio.security.ServiceAccountMatch")(namespace="a")]),
    "matches[0].extensions": _match(extensions=[message("istio.security.Extension")(name="e")]),
    "extensions are not understood": setting_of("extensions[]", name="e"),
}


@pytest.mark.parametrize("reason", BAD_POLICIES)
def test_a_policy_with_one_bad_field_is_refused_whole(reason: str) -> None:
    wire = policy_wire()
    BAD_POLICIES[reason](wire)
    with pytest.raises(Refusal) as caught:
        decode(AUTHORIZATION_TYPE, "ns/p", wire.SerializeToString())
    assert reason in str(caught.value)


@pytest.mark.parametrize("depth", ["top", "rule", "clause", "match", "string"])
def test_a_policy_with_a_field_of_the_future_is_refused_at_any_depth(depth: str) -> None:
    string = b"\x0a\x01n" + (STRANGE_FIELD if depth == "string" else b"")
    match = b"\x0a" + bytes([len(string)]) + string + (STRANGE_FIELD if depth == "match" else b"")
    clause = b"\x12" + bytes([len(match)]) + match + (STRANGE_FIELD if depth == "clause" else b"")
    rule = b"\x0a" + bytes([len(clause)]) + clause + (STRANGE_FIELD if depth == "rule" else b"")
    body = b"\x0a\x01p\x12\x02ns" + b"\x2a" + bytes([len(rule)]) + rule + (STRANGE_FIELD if depth == "top" else b"")
    with pytest.raises(Refusal, match="field 126 is unknown"):
        decode(AUTHORIZATION_TYPE, "ns/p", body)
    assert name_of(decode(AUTHORIZATION_TYPE, "ns/p", body, lax=True)) == "ns/p"


def test_host_bits_of_a_network_are_masked() -> None:
    wire = policy_wire()
    wire.rules[0].clauses[0].matches[0].source_ips.add(address=b"\x0a\x01\x02\x03", length=16)
    wire.rules[0].clauses[0].matches[0].source_ips.add(address=IPv6Address("fd00::1").packed, length=8)
    policy = decode(AUTHORIZATION_TYPE, "ns/p", wire.SerializeToString())
    assert isinstance(policy, Authorization)
    assert policy.rules[0][0][0].source_ips == (ip_network("10.1.0.0/16"), IPv6Network("fd00::/8"))


def test_mapped_networks_become_ipv4() -> None:
    wire = policy_wire()
    match = wire.rules[0].clauses[0].matches[0]
    match.source_ips.add(address=IPv6Address("::ffff:10.0.0.1").packed, length=120)
    policy = decode(AUTHORIZATION_TYPE, "ns/p", wire.SerializeToString())
    assert isinstance(policy, Authorization)
    assert policy.rules[0][0][0].source_ips == (IPv4Network("10.0.0.0/24"),)


@pytest.mark.parametrize("name", ["", "p", "/p", "ns/", "a/b/c"])
def test_there_is_no_stand_in_for_what_is_no_policy_name(name: str) -> None:
    assert closed_stand_in(name, b"") is None


@pytest.mark.parametrize(("number", "scope"), [(0, 0), (1, 1), (2, 2), (9, 1)])
def test_a_stand_in_denies_everything_in_the_scope_of_what_it_stands_for(number: int, scope: int) -> None:
    body = message("istio.security.Authorization")(scope=number).SerializeToString()
    assert closed_stand_in("ns/p", body) == Authorization(
        name="p", namespace="ns", scope=PolicyScope(scope), action=Action.DENY, rules=((),)
    )


def numbered(*values: Any) -> bytes:
    """A policy of two rules with an extension for each value, as another control plane might send it."""
    wire = encode(allow("p", (), ()))
    for value in values:
        wire.extensions.add(name=NUMBERS).config.Pack(value)
    return bytes(wire.SerializeToString())


@pytest.mark.parametrize("lax", [False, True])
def test_the_numbers_of_rules_travel_with_a_policy_of_which_some_were_left_out(lax: bool) -> None:
    policy = allow("p", (), (), numbers=(2, 5))
    assert decode_policy(encode(policy).SerializeToString(), lax=lax) == policy
    assert decode_policy(numbered(StringValue(value="2,5")), lax=lax) == policy
    assert not encode(allow("p", (), ())).extensions
    bare = allow("p")
    assert decode_policy(encode(bare).SerializeToString(), lax=lax) == bare


@pytest.mark.parametrize("lax", [False, True])
def test_what_a_policy_is_about_besides_tcp_travels_with_it(lax: bool) -> None:
    for datagrams in (frozenset[Datagram](), frozenset({Datagram.ICMP}), frozenset(Datagram)):
        policy = allow("p", (), datagrams=datagrams)
        assert decode_policy(encode(policy).SerializeToString(), lax=lax) == policy
    assert not encode(allow("p", ())).extensions
    wire = encode(allow("p", ()))
    wire.extensions.add(name="ambient.mesh/protocols").config.Pack(StringValue(value="udp,sctp"))
    with pytest.raises(InvalidInput, match="protocols names what is not known"):
        decode_policy(wire.SerializeToString(), lax=lax)


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ([StringValue(value="2")], "must number each rule"),
        ([StringValue(value="1,2,3")], "must number each rule"),
        ([StringValue(value="5,2")], "must number each rule"),
        ([StringValue(value="2,2")], "must number each rule"),
        ([StringValue(value="0,1")], "must number each rule"),
        ([StringValue(value="1,x")], "does not hold numbers"),
        ([StringValue(value="1,")], "does not hold numbers"),
        ([StringValue(value="1,\u0662")], "does not hold numbers"),
        ([StringValue(value="1,1234567890")], "does not hold numbers"),
        ([StringValue(value="")], "must number each rule"),
        ([BytesValue(value=b"1,2")], "must be there once"),
        ([StringValue(value="1,2"), StringValue(value="1,2")], "must be there once"),
    ],
    ids=str,
)
def test_numbers_that_do_not_number_the_rules_are_refused(values: list[Any], why: str) -> None:
    for lax in (False, True):
        with pytest.raises(InvalidInput, match=f"rule-numbers {why}"):
            decode_policy(numbered(*values), lax=lax)
