"""Every message survives the wire; nothing else is built from bytes."""

from __future__ import annotations

import typing
from ipaddress import ip_address, ip_network

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ambient.errors import InvalidInput
from ambient.model.outcome import Forward, Hop, NoRoute, Passthrough, PeerLabels, Refuse
from ambient.model.policy import Action, Authorization, Match, PolicyScope, StringMatch, StringMatchKind
from ztunnel.ipc import messages
from ztunnel.ipc.codec import decode, encode

KINDS = (*typing.get_args(messages.ToDirector), *typing.get_args(messages.ToWorker))
POLICY = Authorization(
    name="deny",
    namespace="shop",
    scope=PolicyScope.NAMESPACE,
    action=Action.DENY,
    rules=(
        (
            (
                Match(
                    source_ips=(ip_network("10.0.0.0/8"), ip_network("fd00::/64")),
                    principals=(StringMatch(StringMatchKind.PREFIX, "cluster.local/"),),
                    destination_ports=(80,),
                ),
            ),
        ),
    ),
)


st.register_type_strategy(int, st.integers(-(2**63), 2**63 - 1))
st.register_type_strategy(float, st.floats(allow_nan=False))


@settings(max_examples=400, deadline=None)
@given(st.sampled_from(KINDS).flatmap(st.from_type))
def test_every_message_comes_back_equal(message: object) -> None:
    assert decode(encode(message)) == message


@pytest.mark.parametrize(
    "plan",
    [
        Forward((Hop("10.0.0.1", 15008, "10.0.0.1:80", ("spiffe://cluster.local/ns/a/sa/b",), 3, PeerLabels("w")),)),
        Passthrough("unknown destination"),
        Refuse(NoRoute.NO_SERVICE_PORT, "port 81"),
    ],
)
def test_each_kind_of_plan_keeps_its_class(plan: Forward | Passthrough | Refuse) -> None:
    answer = messages.RouteAnswer(uid="u", ip=ip_address("fd00::1"), port=80, plan=plan)
    assert decode(encode(answer)) == answer


def test_what_a_plan_is_drawn_with_does_not_travel() -> None:
    plan = Forward((Hop("10.0.0.1", 15008), Hop("10.0.0.2", 15008, weight=3)))
    answer = messages.RouteAnswer(uid="u", ip=ip_address("10.96.0.1"), port=80, plan=plan)
    before = encode(answer)
    assert plan.pick(0.5).ip == "10.0.0.2"
    assert encode(answer) == before
    told = decode(before)
    assert isinstance(told, messages.RouteAnswer)
    assert isinstance(told.plan, Forward)
    assert [told.plan.pick(point).ip for point in (0.2, 0.3)] == ["10.0.0.1", "10.0.0.2"]


def test_a_policy_keeps_networks_and_enums() -> None:
    update = messages.PodUpdate(uid="u", policy=messages.PodPolicy(known=True, policies=(POLICY,)))
    back = decode(encode(update))
    assert back == update
    assert isinstance(back, messages.PodUpdate)
    assert type(back.policy.policies[0].action) is Action


def test_an_older_sender_without_the_newest_field_is_understood() -> None:
    raw = msgspec.msgpack.decode(encode(messages.Drain(deadline_s=3.0)))
    assert decode(msgspec.msgpack.encode(raw[:-1])) == messages.Drain(deadline_s=3.0)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\xc1",
        msgspec.msgpack.encode(["Path", "/etc/passwd"]),
        msgspec.msgpack.encode(["Match"]),
        msgspec.msgpack.encode(["PodGone", 7]),
        msgspec.msgpack.encode(["PodGone"]),
        msgspec.msgpack.encode(["PodGone", "u", "more"]),
        msgspec.msgpack.encode([["PodGone"], "u"]),
        msgspec.msgpack.encode({"PodGone": "u"}),
        msgspec.msgpack.encode(["PeerAsk", b"abc"]),
        msgspec.msgpack.encode(["PeerAsk", "10.0.0.1"]),
        msgspec.msgpack.encode(["RouteAnswer", "u", b"\0\0\0\0", 1, ["PodGone", "u"]]),
        msgspec.msgpack.encode(["Drain", True]),
        msgspec.msgpack.encode(["Counters", [["Series", ["a"], True, 0, 0, 0, 0]]]),
        encode(messages.PodGone(uid="u")) + b"x",
    ],
)
def test_anything_else_is_refused(raw: bytes) -> None:
    with pytest.raises(InvalidInput):
        decode(raw)


@given(st.binary(max_size=200))
def test_random_bytes_are_refused_and_raise_nothing_else(raw: bytes) -> None:
    with pytest.raises(InvalidInput):
        decode(raw)


def test_an_unregistered_object_cannot_be_sent() -> None:
    with pytest.raises(InvalidInput):
        encode(PeerLabels())


def test_a_number_over_64_bits_cannot_be_sent() -> None:
    with pytest.raises(InvalidInput):
        encode(messages.ReportAsk(ask=1 << 70))
