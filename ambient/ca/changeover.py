"""An authority that was replaced by another (a new `cacerts`) is taken over in steps, so that nobody fails. Pure.

Until everybody has learned of the new root the old one signs; then the new one signs, and the old one is trusted as
long as certificates that it signed may live. Changes that go through a time with both by themselves need no steps.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from ambient.ca.roots import Authority, issued_by
from ambient.ca.rotation import Pace


@dataclass(frozen=True, slots=True)
class Changeover:
    """`wanted` is the authority as it is configured. `old` signs before `signs_from`; its roots are trusted until
    `retires`. `old` is None after a restart: then `old_roots` is all that is known of it."""

    wanted: Authority
    old: Authority | None = None
    old_roots: str = ""
    signs_from: datetime | None = None
    retires: datetime | None = None

    def effective(self, now: datetime) -> Authority:
        """What signs and what is trusted at this time."""
        if self.retires is None or now >= self.retires:
            return self.wanted
        if self.old is not None and self.signs_from is not None and now < self.signs_from:
            return replace(self.old, roots=merge_roots((self.old.roots, self.wanted.roots), now))
        return replace(self.wanted, roots=merge_roots((self.wanted.roots, self.old_roots), now))

    def replaced(self, wanted: Authority, now: datetime, pace: Pace) -> Changeover:
        """Another authority is configured from now on."""
        current = self.effective(now)
        if _gentle(current, wanted):
            return Changeover(wanted)
        signs_from = now + pace.announce
        if current.not_after <= signs_from:
            signs_from = now
        return Changeover(wanted, current, current.roots, signs_from, signs_from + pace.retire)

    def inherited(self, roots: str, retires: datetime) -> Changeover:
        """What was trusted before we started, and until when."""
        return replace(self, old_roots=roots, signs_from=None, retires=retires)


def merge_roots(bundles: Iterable[str], now: datetime) -> str:
    """The certificates of several PEM texts, each once, in order; those that have ended are left out."""
    found: dict[bytes, str] = {}
    for bundle in bundles:
        for one in x509.load_pem_x509_certificates(bundle.encode()) if bundle.strip() else ():
            if one.not_valid_after_utc > now:
                found.setdefault(one.public_bytes(Encoding.DER), one.public_bytes(Encoding.PEM).decode())
    return "".join(found.values())


def _gentle(current: Authority, wanted: Authority) -> bool:
    """Whether everybody who knows only one of the two gets along with everybody who knows only the other."""
    if current.certificate == wanted.certificate:
        return True
    return _trusted(wanted, current.roots) and _trusted(current, wanted.roots)


def _trusted(authority: Authority, roots: str) -> bool:
    """Whether what `authority` signs is good for somebody who trusts `roots`."""
    known = x509.load_pem_x509_certificates(roots.encode())
    chain = [x509.load_pem_x509_certificate(part.encode()) for part in authority.chain] or [authority.certificate]
    return any(one in known for one in chain) or any(issued_by(chain[-1], root) for root in known)
