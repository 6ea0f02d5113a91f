"""Secrets: what a gateway may need is read, nothing else is kept, and nothing of it is ever quoted."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from ambient.errors import InvalidInput
from ambient.kube.objects import Secret, parse_object

HIDDEN = "very-hidden"


def made(kind: str = "Opaque", *, text: bool = False, **data: Any) -> dict[str, Any]:
    metadata = {
        "name": "s",
        "namespace": "shop",
        "annotations": {"kubectl.kubernetes.io/last-applied-configuration": HIDDEN},
    }
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": metadata,
        "type": kind,
        ("stringData" if text else "data"): data,
    }


def coded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def test_only_what_a_gateway_needs_is_kept_and_none_of_it_is_shown() -> None:
    record = parse_object(made(**{"tls.crt": coded("c"), "ca.crt": coded(HIDDEN), "password": coded(HIDDEN)}), "x")
    assert isinstance(record, Secret)
    assert dict(record.data) == {"tls.crt": "c", "ca.crt": HIDDEN}
    assert HIDDEN not in repr(record)
    assert coded(HIDDEN) not in repr(record)


def test_an_authority_may_have_istios_name() -> None:
    for given, kept in (
        ({"cacert": "i"}, "i"),
        ({"cacert": "i", "ca.crt": ""}, "i"),
        ({"cacert": "i", "ca.crt": "c"}, "c"),
    ):
        record = parse_object(made(text=True, **given), "x")
        assert isinstance(record, Secret)
        assert dict(record.data) == {"ca.crt": kept}


def test_plain_text_counts_as_well() -> None:
    record = parse_object(made(text=True, **{"tls.crt": "c", "tls.key": "k"}), "x")
    assert isinstance(record, Secret)
    assert dict(record.data) == {"tls.crt": "c", "tls.key": "k"}


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (made("kubernetes.io/tls", **{"tls.crt": coded("c")}), "needs tls.crt and tls.key"),
        (made(**{"tls.key": HIDDEN + "!"}), "is not text in base64"),
        (made(**{"tls.key": coded(HIDDEN)[:-1]}), "is not text in base64"),
        (made(**{"tls.key": {HIDDEN: 1}}), "expected a string"),
        (made(text=True, **{"tls.key": 7}), "expected a string"),
    ],
)
def test_what_is_wrong_is_said_without_a_word_of_it(raw: dict[str, Any], why: str) -> None:
    with pytest.raises(InvalidInput) as error:
        parse_object(raw, "x")
    assert why in str(error.value)
    assert HIDDEN not in str(error.value)
