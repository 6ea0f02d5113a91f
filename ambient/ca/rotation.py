"""Changing a self-signed root without anybody noticing: what the files of the authority should be next. Pure.

    at rest -> announced: a new root is trusted beside the old one, which still signs; everybody learns of it
            -> signing:   the new root signs; certificates that the old one signed live on
            -> at rest:   the old root is trusted no more

It begins by itself when little of the root's life is left, or on request. Files (beside those of `ambient.ca.roots`):
`next-key.pem` is the key of the announced root, `rotation.json` says where the change stands. Whoever keeps the files
(a folder, a Secret that replicas share) must let only one of two simultaneous changes win.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from ambient.ca.roots import make_root
from ambient.errors import InvalidInput

ROOTS, KEY, NEXT_KEY, STATE = "root-cert.pem", "root-key.pem", "next-key.pem", "rotation.json"
FILES: Final = (ROOTS, KEY, NEXT_KEY, STATE)
BEGIN, ON = "begin", "next"
"""What a request may ask for: begin a change; go to the next step now. `<word>@<anything>`, acted upon once."""
_RESTS, _ANNOUNCED, _SIGNING = "", "announced", "signing"


@dataclass(frozen=True, slots=True)
class Pace:
    """`announce`: how long both roots are trusted before the new one signs, no shorter than it takes every ztunnel to
    learn of it. `retire`: how long after that the old one is trusted, no shorter than the longest certificate that it
    signed lives. `grace`: the part of a root's life that is left when a change begins by itself."""

    announce: timedelta = timedelta(hours=24)
    retire: timedelta = timedelta(days=90)
    grace: float = 0.2


@dataclass(frozen=True, slots=True)
class Step:
    """What the files are to be, all of them (the absent ones go), and what to tell people."""

    files: Mapping[str, bytes]
    said: str


@dataclass(frozen=True, slots=True)
class State:
    """Where a change stands. `handled`: the request that was acted upon last."""

    stage: str = _RESTS
    since: datetime | None = None
    handled: str = ""

    def written(self) -> bytes:
        since = self.since.isoformat() if self.since is not None else ""
        return json.dumps({"stage": self.stage, "since": since, "handled": self.handled}).encode()


def read_state(files: Mapping[str, bytes]) -> State:
    """Raises InvalidInput for a state that is not ours."""
    if not files.get(STATE, b"").strip():
        return State()
    try:
        found = json.loads(files[STATE])
        since = datetime.fromisoformat(found["since"]) if found["since"] else None
        state = State(str(found["stage"]), since, str(found["handled"]))
    except (ValueError, KeyError, TypeError):
        raise InvalidInput("rotation of the root", STATE, "is not what was written there") from None
    if state.stage not in (_RESTS, _ANNOUNCED, _SIGNING) or (since is not None and since.tzinfo is None):
        raise InvalidInput("rotation of the root", STATE, "is not what was written there")
    return state


def advance(
    files: Mapping[str, bytes], request: str, now: datetime, pace: Pace, *, organization: str, lifetime: timedelta
) -> Step | None:
    """The next step when it is time for one, else None. Raises InvalidInput when the files cannot be understood."""
    state = read_state(files)
    word = request.partition("@")[0] if request != state.handled else ""
    since = state.since or now
    hurried = word == ON
    if state.stage == _ANNOUNCED and (hurried or now >= since + pace.announce):
        return _sign_with_new(files, now, request)
    if state.stage == _SIGNING and (hurried or now >= since + pace.retire):
        return _drop_old(files, request)
    if state.stage == _RESTS and (word == BEGIN or _near_its_end(files, now, pace)):
        return _announce(files, now, request, organization, lifetime)
    return None


def describe(files: Mapping[str, bytes], pace: Pace) -> str:
    """Where a change stands, for people."""
    state = read_state(files)
    if state.stage == _ANNOUNCED and state.since is not None:
        return f"a new root is announced, and signs from {(state.since + pace.announce).isoformat(timespec='seconds')}"
    if state.stage == _SIGNING and state.since is not None:
        return f"the old root is trusted until {(state.since + pace.retire).isoformat(timespec='seconds')}"
    return "no change of the root is under way"


def _announce(files: Mapping[str, bytes], now: datetime, request: str, organization: str, lifetime: timedelta) -> Step:
    certificate, key = make_root(now, organization, lifetime)
    changed = {
        ROOTS: _pem([_signer(files, KEY), *_others(files, KEY)]) + certificate.encode(),
        KEY: files[KEY],
        NEXT_KEY: key.encode(),
        STATE: State(_ANNOUNCED, now, request).written(),
    }
    return Step(MappingProxyType(changed), "a new root is announced; the old one signs until everybody knows it")


def _sign_with_new(files: Mapping[str, bytes], now: datetime, request: str) -> Step:
    new = _signer(files, NEXT_KEY)
    changed = {
        ROOTS: _pem([new, *_others(files, NEXT_KEY)]),
        KEY: files[NEXT_KEY],
        STATE: State(_SIGNING, now, request).written(),
    }
    return Step(MappingProxyType(changed), "the new root signs; the old one is trusted still")


def _drop_old(files: Mapping[str, bytes], request: str) -> Step:
    changed = {
        ROOTS: _pem([_signer(files, KEY)]),
        KEY: files[KEY],
        STATE: State(_RESTS, None, request).written(),
    }
    return Step(MappingProxyType(changed), "the old root is trusted no more")


def _near_its_end(files: Mapping[str, bytes], now: datetime, pace: Pace) -> bool:
    signer = _signer(files, KEY)
    life = signer.not_valid_after_utc - signer.not_valid_before_utc
    return now >= signer.not_valid_after_utc - life * pace.grace


def _certificates(files: Mapping[str, bytes]) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(files[ROOTS])
    except (KeyError, ValueError):
        raise InvalidInput("rotation of the root", ROOTS, "has no certificates") from None


def _signer(files: Mapping[str, bytes], key_file: str) -> x509.Certificate:
    """The root that a key belongs to."""
    public = _public(files, key_file)
    for certificate in _certificates(files):
        if certificate.public_key() == public:
            return certificate
    raise InvalidInput("rotation of the root", ROOTS, f"no certificate in it belongs to {key_file}")


def _others(files: Mapping[str, bytes], key_file: str) -> list[x509.Certificate]:
    public = _public(files, key_file)
    return [one for one in _certificates(files) if one.public_key() != public]


def _public(files: Mapping[str, bytes], key_file: str) -> object:
    try:
        return serialization.load_pem_private_key(files[key_file], password=None).public_key()
    except KeyError:
        raise InvalidInput("rotation of the root", key_file, "is missing") from None
    except (ValueError, TypeError):
        raise InvalidInput("rotation of the root", key_file, "is not an unencrypted private key in PEM") from None


def _pem(certificates: list[x509.Certificate]) -> bytes:
    return b"".join(one.public_bytes(serialization.Encoding.PEM) for one in certificates)
