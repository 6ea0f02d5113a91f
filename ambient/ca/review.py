"""What a Kubernetes TokenReview says about a token, as a caller of ours. Pure.

A server that knows the pod's node names it in the extras `authentication.kubernetes.io/node-name`; an older one does
not, and the pod has to be looked up. Nothing here quotes a token.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from ambient.ca.token import MOST_BYTES, Caller
from ambient.errors import Refused

_EXTRA: Final = "authentication.kubernetes.io/"
_SUBJECT: Final = re.compile(r"system:serviceaccount:([a-z0-9.-]{1,253}):([a-z0-9.-]{1,253})")
_NAME: Final = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")
_UID: Final = re.compile(r"[A-Za-z0-9-]{1,64}")
_SKEW_S: Final = 60


@dataclass(frozen=True, slots=True)
class Reviewed:
    """A service account's token that is bound to a pod. `node` is "" where the server does not tell it."""

    namespace: str
    service_account: str
    pod: str
    pod_uid: str
    node: str

    def caller(self, node: str) -> Caller:
        return Caller(node, self.namespace, self.service_account, self.pod_uid)


def read_review(answer: Mapping[str, Any], audience: str) -> Reviewed:
    """The `TokenReview` that the API server answered; raises Refused with the reason."""
    status = answer.get("status")
    if not isinstance(status, Mapping) or status.get("authenticated") is not True:
        raise _refused("the API server does not accept it")
    audiences = status.get("audiences")
    # A server that does not know audiences says nothing of them, and would let tokens of any purpose pass.
    if not isinstance(audiences, list) or audience not in audiences:
        raise _refused(f"not made for audience {audience!r}")
    user = status.get("user")
    user = user if isinstance(user, Mapping) else {}
    username = user.get("username")
    match = _SUBJECT.fullmatch(username) if isinstance(username, str) else None
    if match is None:
        raise _refused("its holder is no service account")
    extra = user.get("extra")
    extra = extra if isinstance(extra, Mapping) else {}
    pod, uid = _one(extra, "pod-name", _NAME), _one(extra, "pod-uid", _UID)
    if not pod or not uid:
        raise _refused("it is not bound to a pod")
    return Reviewed(match[1], match[2], pod, uid, _one(extra, "node-name", _NAME))


def node_of_pod(pod: Mapping[str, Any], reviewed: Reviewed) -> str:
    """The node of the pod that a token is bound to; raises Refused when it is another pod by now, or on no node."""
    metadata, spec = pod.get("metadata"), pod.get("spec")
    if not isinstance(metadata, Mapping) or not isinstance(spec, Mapping) or metadata.get("uid") != reviewed.pod_uid:
        raise _refused("the pod that it is bound to is gone")
    if spec.get("serviceAccountName") != reviewed.service_account:
        raise _refused("the pod that it is bound to has another service account")
    node = spec.get("nodeName")
    if not isinstance(node, str) or not _NAME.fullmatch(node):
        raise _refused("the pod that it is bound to is on no node")
    return node


def expiry(token: str, now_unix: float, audience: str) -> float:
    """When a token says that it ends (Unix seconds). Nothing of it is proven by this: it tells which tokens are not
    worth asking about. Raises Refused for what is no JSON web token, over, or for others."""
    if len(token) > MOST_BYTES:
        raise _refused("too long")
    parts = token.split(".")
    if len(parts) != 3 or not all(parts):
        raise _refused("not a token of the expected form")
    try:
        claims = json.loads(base64.b64decode(parts[1] + "=" * (-len(parts[1]) % 4), altchars=b"-_", validate=True))
    except (ValueError, binascii.Error, RecursionError):
        raise _refused("not a token of the expected form") from None
    if not isinstance(claims, dict):
        raise _refused("not a token of the expected form")
    meant = claims.get("aud")
    if meant != audience and not (isinstance(meant, list) and audience in meant):
        raise _refused(f"not made for audience {audience!r}")
    end = claims.get("exp")
    if isinstance(end, bool) or not isinstance(end, int | float):
        raise _refused("it has no end")
    if end + _SKEW_S <= now_unix:
        raise _refused("expired")
    return float(end)


def _one(extra: Mapping[str, Any], name: str, form: re.Pattern[str]) -> str:
    """The only value of an extra; "" when there is none. Two values, or an odd one, are refused."""
    values = extra.get(_EXTRA + name)
    if values is None or values == []:
        return ""
    if not isinstance(values, list) or len(values) != 1 or not isinstance(values[0], str):
        raise _refused(f"the API server names several values of {name}")
    if not form.fullmatch(values[0]):
        raise _refused(f"its {name} is not of the expected form")
    return values[0]


def _refused(why: str) -> Refused:
    return Refused("token", why=why)
