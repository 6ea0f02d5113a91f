"""An API server that reviews tokens as a real one does, for tests: tokens that look like a kubelet's, and answers."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any

from ambient.kube.api.failure import NotThere
from ambient.kube.resource import Resource

NOW = 1_800_000_000.0
EXTRA = "authentication.kubernetes.io/"


def token(mark: str = "a", *, audience: object = ("istio-ca",), end: object = NOW + 3600, **claims: object) -> str:
    """A token that nobody signed: our side looks at its claims only to leave out what is not worth asking about."""
    body = {"aud": list(audience) if isinstance(audience, tuple) else audience, "exp": end, "jti": mark, **claims}
    words = (b'{"alg":"RS256"}', json.dumps({k: v for k, v in body.items() if v is not None}).encode(), b"signature")
    return ".".join(base64.urlsafe_b64encode(word).decode().rstrip("=") for word in words)


def answer(**changes: Any) -> dict[str, Any]:
    """A good review of the token of pod zt on node n1; `changes` replace parts of its status, None takes one away."""
    extra = {"pod-name": ["zt"], "pod-uid": ["uid-1"], "node-name": ["n1"], **changes.pop("extra", {})}
    user = {
        "username": "system:serviceaccount:ambient-system:ztunnel",
        "extra": {EXTRA + name: values for name, values in extra.items() if values is not None},
        **changes.pop("user", {}),
    }
    status = {"authenticated": True, "audiences": ["istio-ca"], "user": user, **changes}
    return {"kind": "TokenReview", "status": {name: value for name, value in status.items() if value is not None}}


class Server:
    """`answers`: what it says to which token, an error to be raised, or the default `answer()`."""

    def __init__(self) -> None:
        self.answers: dict[str, Mapping[str, Any] | Exception] = {}
        self.down: Exception | None = None
        self.pods: dict[tuple[str, str], dict[str, Any]] = {}
        self.asked: list[str] = []
        self.looked_up: list[str] = []

    async def create(self, resource: Resource, body: Any, namespace: str = "") -> dict[str, Any]:
        assert resource.path(namespace) == "/apis/authentication.k8s.io/v1/tokenreviews"
        assert body["spec"]["audiences"] == ["istio-ca"]
        given = body["spec"]["token"]
        self.asked.append(given)
        found = self.answers.get(given, answer())
        if self.down is not None:
            raise self.down
        if isinstance(found, Exception):
            raise found
        return dict(found)

    async def get(self, resource: Resource, name: str, namespace: str = "") -> dict[str, Any]:
        self.looked_up.append(resource.path(namespace, name))
        if self.down is not None:
            raise self.down
        if (namespace, name) not in self.pods:
            raise NotThere("the Kubernetes API refuses", name, "not found")
        return self.pods[namespace, name]
