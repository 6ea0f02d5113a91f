"""Node tokens: JWT (ES256) that prove which node, and which component on it, is calling. The clock is an argument.

Claims: iss, aud, sub ("system:serviceaccount:<namespace>:<account>"), node, pod_uid, iat, exp. Nothing here logs or
quotes a token.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import jwt

from ambient.errors import InvalidInput, Refused

AUDIENCE: Final = "istio-ca"
MOST_BYTES: Final = 16 * 1024
_SKEW_S: Final = 60
_SUBJECT: Final = re.compile(r"system:serviceaccount:([a-z0-9.-]{1,253}):([a-z0-9.-]{1,253})")
_PEM_KEY: Final = re.compile(r"-----BEGIN PUBLIC KEY-----.+?-----END PUBLIC KEY-----", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Caller:
    """Who a token speaks for. `name` is how we call it in logs and in /sync: "<node>/<service account>"."""

    node: str
    namespace: str
    service_account: str
    pod_uid: str = ""

    @property
    def account(self) -> str:
        return f"{self.namespace}/{self.service_account}"

    @property
    def name(self) -> str:
        return f"{self.node}/{self.service_account}"


def load_token_keys(pem: str) -> tuple[str, ...]:
    """The public keys in a PEM text (several while keys rotate); raises InvalidInput when there is none."""
    keys = tuple(_PEM_KEY.findall(pem))
    if not keys:
        raise InvalidInput("token key", why="no PUBLIC KEY block in it")
    for key in keys:
        try:
            jwt.get_algorithm_by_name("ES256").prepare_key(key)
        except (jwt.InvalidKeyError, ValueError, TypeError):
            raise InvalidInput("token key", why="is not an ECDSA P-256 public key") from None
    return keys


def verify_token(token: str, keys: Sequence[str], now_unix: float, *, issuer: str, audience: str = AUDIENCE) -> Caller:
    """The caller that `token` proves; raises Refused with a reason that does not quote it."""
    if len(token) > MOST_BYTES:
        raise _refused("too long")
    claims = _claims(token, keys, issuer, audience)
    if not _number(claims, "iat") <= now_unix + _SKEW_S:
        raise _refused("issued in the future")
    if not now_unix < _number(claims, "exp"):
        raise _refused("expired")
    subject = claims["sub"]
    match = _SUBJECT.fullmatch(subject) if isinstance(subject, str) else None
    node, pod_uid = claims.get("node"), claims.get("pod_uid", "")
    if match is None:
        raise _refused("its subject is no service account")
    if not isinstance(node, str) or not re.fullmatch(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?", node):
        raise _refused("it is not bound to a node")
    if not isinstance(pod_uid, str):
        raise _refused("its pod_uid is no text")
    return Caller(node, match[1], match[2], pod_uid)


def issue_token(
    private_key: str, caller: Caller, now_unix: float, lifetime_s: float, *, issuer: str, audience: str = AUDIENCE
) -> str:
    """Sign a token for `caller` with an ECDSA P-256 key in PEM."""
    claims = {
        "iss": issuer,
        "aud": audience,
        "sub": f"system:serviceaccount:{caller.namespace}:{caller.service_account}",
        "node": caller.node,
        "pod_uid": caller.pod_uid,
        "iat": int(now_unix),
        "exp": int(now_unix + lifetime_s),
    }
    return jwt.encode(claims, private_key, algorithm="ES256")


def _claims(token: str, keys: Sequence[str], issuer: str, audience: str) -> dict[str, Any]:
    # Times are checked by us: PyJWT would ask a clock of its own.
    options: Any = {
        "require": ["iss", "aud", "sub", "iat", "exp"],
        "verify_exp": False,
        "verify_iat": False,
        "verify_nbf": False,
    }
    why = "no key to verify it with"
    for key in keys:
        try:
            return jwt.decode(token, key, algorithms=["ES256"], audience=audience, issuer=issuer, options=options)
        except jwt.InvalidSignatureError:
            why = "not signed by a key we trust"
        except jwt.InvalidAudienceError:
            raise _refused("made for another audience") from None
        except jwt.InvalidIssuerError:
            raise _refused("made by another issuer") from None
        except jwt.MissingRequiredClaimError as error:
            raise _refused(f"claim {error.claim} is missing") from None
        except (jwt.PyJWTError, ValueError, TypeError):
            raise _refused("not a token of the expected form") from None
    raise _refused(why)


def _number(claims: dict[str, Any], name: str) -> float:
    value = claims[name]
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _refused(f"claim {name} is no number")
    return float(value)


def _refused(why: str) -> Refused:
    return Refused("token", why=why)
