from __future__ import annotations

import base64
import json

import pytest

from ambient.ca.ticket import (
    NOTE,
    Ticket,
    admit,
    digest,
    expired,
    new_secret,
    new_ticket,
    read_session,
    session_text,
)
from ambient.errors import InvalidInput, Refused

NOW = 1_000_000.0
ROOT = "-----BEGIN CERTIFICATE-----\nMII\n-----END CERTIFICATE-----\n"


def _made(life_s: float = 60) -> tuple[Ticket, dict[str, str]]:
    ticket, note = new_ticket("shop", "ledger", control="192.0.2.1:15012", root=ROOT, expires_unix=NOW + life_s)
    return ticket, {NOTE + ticket.number: note, "other": "annotation"}


def test_a_ticket_survives_being_carried_as_text() -> None:
    ticket, _ = _made()
    assert Ticket.read(f"  {ticket.text}\n") == ticket
    assert ticket.text.isprintable()
    assert " " not in ticket.text


def test_its_note_shows_nothing_of_its_secret() -> None:
    ticket, notes = _made()
    assert ticket.secret not in json.dumps(notes)
    assert len(ticket.secret) == 43
    assert _made()[0].secret != ticket.secret


def test_it_is_good_for_its_group_until_its_time_is_over() -> None:
    ticket, notes = _made()
    assert admit(notes, ticket.number, ticket.secret, NOW + 59) == NOTE + ticket.number
    with pytest.raises(Refused, match="expired"):
        admit(notes, ticket.number, ticket.secret, NOW + 60)


@pytest.mark.parametrize(
    "case", ["spent", "another's secret", "another group", "a broken note", "no time", "no digest"]
)
def test_every_other_ticket_is_refused_alike(case: str) -> None:
    ticket, notes = _made()
    secret = ticket.secret
    match case:
        case "spent":
            notes = {}
        case "another's secret":
            secret = new_secret()
        case "another group":
            notes = _made()[1]
        case "a broken note":
            notes = {NOTE + ticket.number: "x"}
        case "no time":
            notes = {NOTE + ticket.number: f"soon {digest(secret)}"}
        case "no digest":
            notes = {NOTE + ticket.number: "9999999999 ü"}
    with pytest.raises(Refused, match="this group has no such ticket"):
        admit(notes, ticket.number, secret, NOW)


def test_who_has_not_the_secret_does_not_learn_that_a_ticket_is_expired() -> None:
    ticket, notes = _made()
    with pytest.raises(Refused, match="no such ticket"):
        admit(notes, ticket.number, new_secret(), NOW + 3600)


def test_what_nobody_can_use_any_more_is_found() -> None:
    old, notes = _made(1)
    new, more = _made(100)
    notes |= more | {NOTE + "broken": "x", NOTE + "odd": "² x"}
    assert expired(notes, NOW + 2) == sorted([NOTE + old.number, NOTE + "broken", NOTE + "odd"])
    assert NOTE + new.number not in expired(notes, NOW + 2)


def _text(**changes: object) -> str:
    ticket, _ = _made()
    raw = {
        **{"namespace": "shop", "group": "ledger", "number": ticket.number, "secret": ticket.secret},
        **{"control": "c:1", "root": ROOT},
        **changes,
    }
    return "ambient-ticket-1." + base64.urlsafe_b64encode(json.dumps(raw).encode()).decode()


@pytest.mark.parametrize(
    "text",
    [
        *("", "ticket", "ambient-ticket-1.", "ambient-ticket-1.e30", "ambient-ticket-1." + "A" * 40000),
        *(_text(namespace="a/b"), _text(group=""), _text(number="1"), _text(secret="short"), _text(more="x")),
        *(_text(control=1), _text(root=None), _text(group=3)),
    ],
)
def test_what_is_no_ticket_is_refused_without_quoting_it(text: str) -> None:
    with pytest.raises(InvalidInput) as error:
        Ticket.read(text)
    assert len(str(error.value)) < 200


def test_a_session_names_the_process_and_the_entry() -> None:
    secret = new_secret()
    assert read_session(session_text("ztunnel", "shop", "ledger-10-0-0-7", secret)) == (
        *("ztunnel", "shop", "ledger-10-0-0-7"),
        secret,
    )


def test_other_tokens_are_no_sessions_and_broken_ones_are_refused() -> None:
    assert read_session("eyJhbGciOi.J9.x") is None
    for broken in ("ambient-join:", "ambient-join:root:a:b:" + "x" * 43, "ambient-join:agent:a:b:short"):
        with pytest.raises(Refused):
            read_session(broken)
