"""Tickets and sessions of workloads outside Kubernetes. Pure but for random numbers.

A ticket is good for one join to one WorkloadGroup. What is kept of it is a note in an annotation of that group, of
which only the digest of its secret can be read; whoever may change the group may make tickets, and taking the note away
spends or revokes it. A session is what a workload that has joined proves itself with afterwards; its digest is an
annotation of the WorkloadEntry, so that it ends with the entry.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Final

from ambient.errors import InvalidInput, Refused

NOTE: Final = "tickets.ambient.mesh/"
"""Prefix of the annotation of a ticket on its WorkloadGroup; what follows is the ticket's number."""
_TEXT: Final = "ambient-ticket-1."
_SESSION: Final = "ambient-join"
_MOST_BYTES: Final = 32 * 1024
_NAME: Final = re.compile(r"[a-z0-9]([-.a-z0-9]{0,251}[a-z0-9])?")
_NUMBER: Final = re.compile(r"[0-9a-f]{16}")
_SECRET: Final = re.compile(r"[A-Za-z0-9_-]{43}")
ROLES: Final = ("join", "agent", "ztunnel")
"""Which process of a machine speaks."""


@dataclass(frozen=True, slots=True)
class Ticket:
    """`control` is host:port of the control plane as the machine reaches it, `root` its root certificates in PEM."""

    namespace: str
    group: str
    number: str
    secret: str
    control: str
    root: str

    @property
    def text(self) -> str:
        """One line of printable characters: what is carried to the machine."""
        return _TEXT + base64.urlsafe_b64encode(json.dumps(asdict(self)).encode()).decode().rstrip("=")

    @classmethod
    def read(cls, text: str) -> Ticket:
        """Raises InvalidInput, without quoting it."""
        body = text.strip()
        try:
            if not body.startswith(_TEXT) or len(body) > _MOST_BYTES:
                raise ValueError
            encoded = body.removeprefix(_TEXT)
            raw = json.loads(base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4)))
            found = cls(**raw)
        except (ValueError, TypeError):
            raise InvalidInput("ticket", why="not a ticket as `ambient ticket create` prints it") from None
        checked(found.namespace, found.group, found.number, found.secret)
        if not isinstance(found.control, str) or not isinstance(found.root, str):
            raise InvalidInput("ticket", why="control and root are texts")
        return found


def checked(namespace: object, group: object, number: object, secret: object) -> tuple[str, str, str, str]:
    """The four parts of a ticket as texts of the right form; raises InvalidInput."""
    parts = (namespace, group, number, secret)
    for part, form in zip(parts, (_NAME, _NAME, _NUMBER, _SECRET), strict=True):
        if not isinstance(part, str) or not form.fullmatch(part):
            raise InvalidInput("ticket", why="a part of it has not the expected form")
    return str(namespace), str(group), str(number), str(secret)


def new_ticket(namespace: str, group: str, *, control: str, root: str, expires_unix: float) -> tuple[Ticket, str]:
    """A ticket, and the value of the annotation NOTE + number that makes it good until then."""
    ticket = Ticket(namespace, group, secrets.token_hex(8), new_secret(), control, root)
    return ticket, f"{int(expires_unix)} {digest(ticket.secret)}"


def admit(annotations: Mapping[str, str], number: str, secret: str, now_unix: float) -> str:
    """The annotation to take away from the group so that the ticket is spent; raises Refused.

    Only who has the secret learns whether a ticket is expired, or was there at all.
    """
    key = NOTE + number
    expires, _, known = annotations.get(key, "").partition(" ")
    if not same_digest(known, secret) or not expires.isascii() or not expires.isdigit():
        raise Refused("ticket", why="this group has no such ticket: it was spent, revoked, or made for another group")
    if now_unix >= int(expires):
        raise Refused("ticket", why="it is expired")
    return key


def expired(annotations: Mapping[str, str], now_unix: float) -> list[str]:
    """Annotations of tickets that nobody can use any more, or that are broken."""
    notes = {key: value.partition(" ")[0] for key, value in annotations.items() if key.startswith(NOTE)}
    return sorted(key for key, end in notes.items() if not (end.isascii() and end.isdigit()) or now_unix >= int(end))


def new_secret() -> str:
    """256 random bits as 43 characters."""
    return secrets.token_urlsafe(32)


def digest(secret: str) -> str:
    """What may be shown of a secret: it is random and long, so this leads nowhere back."""
    return hashlib.sha256(secret.encode()).hexdigest()


def same_digest(kept: str, secret: str) -> bool:
    """Whether `kept`, which may be anything that somebody wrote there, is the digest of this secret."""
    return hmac.compare_digest(kept.encode("utf-8", "surrogatepass"), digest(secret).encode())


def session_text(role: str, namespace: str, entry: str, secret: str) -> str:
    """The bearer token of one process of a machine that has joined."""
    return ":".join((_SESSION, role, namespace, entry, secret))


def read_session(token: str) -> tuple[str, str, str, str] | None:
    """(role, namespace, entry, secret), None for a token of another kind; raises Refused for a broken one."""
    kind, _, rest = token.partition(":")
    if kind != _SESSION:
        return None
    parts = rest.split(":")
    if len(parts) != 4 or parts[0] not in ROLES or not _SECRET.fullmatch(parts[3]):
        raise Refused("token", why="not a session of a workload that has joined")
    return parts[0], parts[1], parts[2], parts[3]
