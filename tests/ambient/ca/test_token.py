"""Node tokens: what proves a caller, and every way in which a token proves nothing."""

from __future__ import annotations

import base64
import json
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from ambient.ca.token import MOST_BYTES, Caller, issue_token, load_token_keys, verify_token
from ambient.errors import InvalidInput, Refused
from tests.support.control import pem_of, public_pem

NOW = 1_700_000_000.0
KEY = ec.generate_private_key(ec.SECP256R1())
OTHER = ec.generate_private_key(ec.SECP256R1())
KEYS = load_token_keys(public_pem(KEY))
CALLER = Caller("n1", "ambient-system", "ztunnel", "pod-uid")
CLAIMS: dict[str, Any] = {
    "iss": "lab",
    "aud": "istio-ca",
    "sub": "system:serviceaccount:ambient-system:ztunnel",
    "node": "n1",
    "pod_uid": "pod-uid",
    "iat": int(NOW),
    "exp": int(NOW) + 600,
}


def verify(token: str, keys: tuple[str, ...] = KEYS, now: float = NOW) -> Caller:
    return verify_token(token, keys, now, issuer="lab")


def sign(key: ec.EllipticCurvePrivateKey = KEY, *, without: str = "", **changes: Any) -> str:
    claims = {name: value for name, value in {**CLAIMS, **changes}.items() if name != without}
    return jwt.encode(claims, pem_of(key), algorithm="ES256")


def test_an_issued_token_proves_its_caller() -> None:
    assert verify(issue_token(pem_of(KEY), CALLER, NOW, 600, issuer="lab")) == CALLER
    assert CALLER.name == "n1/ztunnel"
    assert CALLER.account == "ambient-system/ztunnel"


def test_several_keys_are_trusted_while_they_rotate() -> None:
    keys = load_token_keys(public_pem(OTHER) + public_pem(KEY))
    assert verify(sign(KEY), keys) == verify(sign(OTHER), keys) == CALLER


def unsigned() -> str:
    parts = [{"alg": "none", "typ": "JWT"}, CLAIMS]
    return ".".join(base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts) + "."


def with_hmac_of_the_public_key() -> str:
    """The classic confusion: the public key used as a shared secret."""
    import hashlib
    import hmac

    parts = [{"alg": "HS256", "typ": "JWT"}, CLAIMS]
    body = ".".join(base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts)
    mac = hmac.new(KEYS[0].encode(), body.encode(), hashlib.sha256).digest()
    return f"{body}.{base64.urlsafe_b64encode(mac).decode().rstrip('=')}"


BAD_TOKENS: dict[str, str] = {
    "expected form": "rubbish",
    "expected form ": "",
    "expected form  ": unsigned(),
    "expected form   ": with_hmac_of_the_public_key(),
    "not signed by a key we trust": sign(OTHER),
    "another audience": sign(aud="kubernetes"),
    "another issuer": sign(iss="somebody"),
    "claim exp is missing": sign(without="exp"),
    "claim iat is missing": sign(without="iat"),
    "claim sub is missing": sign(without="sub"),
    "claim aud is missing": sign(without="aud"),
    "claim iss is missing": sign(without="iss"),
    "expired": sign(exp=int(NOW)),
    "in the future": sign(iat=int(NOW) + 3600),
    "claim exp is no number": sign(exp=True),
    "not bound to a node": sign(without="node"),
    "not bound to a node ": sign(node=""),
    "not bound to a node  ": sign(node="../n2"),
    "not bound to a node   ": sign(node=["n1"]),
    "no service account": sign(sub="admin"),
    "no service account ": sign(sub="system:serviceaccount:a:b:c"),
    "no service account  ": sign(sub="system:serviceaccount:a/b:c"),
    "pod_uid is no text": sign(pod_uid=5),
    "too long": "a" * (MOST_BYTES + 1),
}


@pytest.mark.parametrize("reason", BAD_TOKENS)
def test_a_token_that_proves_nothing_is_refused_without_being_quoted(reason: str) -> None:
    token = BAD_TOKENS[reason]
    with pytest.raises(Refused) as caught:
        verify(token)
    assert reason.strip() in str(caught.value)
    assert not token or token not in str(caught.value)


def test_a_changed_claim_breaks_the_signature() -> None:
    head, body, mac = sign().split(".")
    claims = json.loads(base64.urlsafe_b64decode(body + "=="))
    claims["node"] = "n2"
    forged = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
    with pytest.raises(Refused, match="not signed"):
        verify(f"{head}.{forged}.{mac}")


@pytest.mark.parametrize(
    "pem",
    [
        "",
        "rubbish",
        pem_of(KEY),
        "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----",
        public_pem(rsa.generate_private_key(65537, 2048)),  # type: ignore[arg-type]
        public_pem(ec.generate_private_key(ec.SECP384R1())),
    ],
)
def test_only_public_keys_of_the_right_kind_are_loaded(pem: str) -> None:
    with pytest.raises(InvalidInput, match="token key"):
        load_token_keys(pem)
