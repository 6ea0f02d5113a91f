"""What to answer the API server that asks whether an object may be written (AdmissionReview v1). Pure.

Refused is only what the mesh would refuse anyway, with the field, the reason and an example of right; it is better to
hear that from `kubectl apply` than to look for it later. Never refused: what goes away, what changes neither spec nor
labels nor annotations (finalizers, status, ownership), and anything in the namespaces of the system.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import Any, Final

from ambient.control.admission_checks import View, warnings
from ambient.control.admission_examples import example
from ambient.errors import InvalidInput
from ambient.kube.objects import KINDS, Record, parse_object

SYSTEM: Final = frozenset({"kube-system", "kube-public", "kube-node-lease"})
WARN_ONLY: Final = frozenset({"Namespace", "Pod", "Service", "Node", "ServiceAccount", "ConfigMap", "EndpointSlice"})
"""Kinds that are not ours to refuse: Kubernetes itself has accepted them."""
ROUTES: Final = frozenset({"HTTPRoute", "GRPCRoute", "TCPRoute", "TLSRoute"})
"""Kinds of which those on a Service alone are the mesh's."""
MOST_WARNINGS: Final = 8
LONGEST: Final = 250
"""The API server cuts warnings at 256 characters (KEP-1693)."""
_UNNAMED: Final = "00000"


def review(body: object, view: View) -> dict[str, Any]:
    """The AdmissionReview to send back. Raises InvalidInput for what is no AdmissionReview."""
    request = body.get("request") if isinstance(body, Mapping) else None
    if not isinstance(request, Mapping) or not isinstance(request.get("uid"), str):
        raise InvalidInput("admission review", why="it has no request with a uid")
    response: dict[str, Any] = {"uid": request["uid"], "allowed": True}
    error, told = _judged(request, view)
    if error is not None:
        message = _message(error)
        if _may_be_refused(request, view):
            response |= {"allowed": False, "status": _status(request, error, message)}
        else:
            told = [f"the mesh will not understand this object: {message}"]
    if told:
        lines = [line for one in told for line in textwrap.wrap(one, LONGEST, break_on_hyphens=False)]
        response["warnings"] = lines[:MOST_WARNINGS]
    return {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response}


def _judged(request: Mapping[str, Any], view: View) -> tuple[InvalidInput | None, list[str]]:
    """What is wrong with the object of a request, and what there is to warn of."""
    content, before = request.get("object"), request.get("oldObject")
    if request.get("operation") not in ("CREATE", "UPDATE") or request.get("subResource"):
        return None, []
    if not isinstance(content, Mapping) or content.get("kind") not in KINDS:
        return None, []
    metadata = content.get("metadata")
    metadata = metadata if isinstance(metadata, Mapping) else {}
    if metadata.get("deletionTimestamp") or (isinstance(before, Mapping) and _same(before, content)):
        return None, []
    if content.get("kind") in ROUTES and not _on_a_service(content):
        return None, []
    try:
        record: Record = parse_object(_named(content, metadata, request), "", observed=True)
    except InvalidInput as error:
        return error, []
    return None, list(warnings(record, view))


def _same(before: Mapping[str, Any], after: Mapping[str, Any]) -> bool:
    """Whether nothing that means anything to the mesh has changed."""

    def meant(content: Mapping[str, Any]) -> tuple[Any, ...]:
        metadata = content.get("metadata")
        metadata = metadata if isinstance(metadata, Mapping) else {}
        parts = {key: value for key, value in content.items() if key not in ("metadata", "status", "apiVersion")}
        return parts, metadata.get("labels") or {}, metadata.get("annotations") or {}

    return meant(before) == meant(after)


def _on_a_service(content: Mapping[str, Any]) -> bool:
    """A route of the mesh. What cannot be read is not said to be one."""
    spec = content.get("spec")
    parents = spec.get("parentRefs") if isinstance(spec, Mapping) else None
    listed = parents if isinstance(parents, list) else []
    return any(isinstance(one, Mapping) and one.get("kind") in ("Service", "ServiceEntry") for one in listed)


def _named(content: Mapping[str, Any], metadata: Mapping[str, Any], request: Mapping[str, Any]) -> dict[str, Any]:
    """The object as it will be stored: with a name (generateName gets one after us) and its namespace."""
    filled = dict(metadata)
    if not filled.get("name"):
        generated = filled.pop("generateName", "")
        filled["name"] = _text(request, "name") or f"{generated}{_UNNAMED}"
    if _text(request, "namespace") and content.get("kind") != "Namespace":
        filled.setdefault("namespace", request["namespace"])
    return {**content, "metadata": filled}


def _may_be_refused(request: Mapping[str, Any], view: View) -> bool:
    content = request["object"]
    return content.get("kind") not in WARN_ONLY and _text(request, "namespace") not in SYSTEM | {view.own_namespace}


def _message(error: InvalidInput) -> str:
    return ": ".join(part for part in (error.where, _why(error)) if part) or str(error)


def _why(error: InvalidInput) -> str:
    """The reason, with an example of right. (kubectl shows causes, where there are any, and not the message.)"""
    right = example(error.where)
    return f"{error.why}. For example: {right}" if right else error.why


def _text(request: Mapping[str, Any], name: str) -> str:
    value = request.get(name)
    return value if isinstance(value, str) else ""


def _status(request: Mapping[str, Any], error: InvalidInput, message: str) -> dict[str, Any]:
    kind = str(request["object"].get("kind"))
    cause = {"reason": "FieldValueInvalid", "field": error.where, "message": _why(error)}
    return {
        "status": "Failure",
        "code": 422,
        "reason": "Invalid",
        "message": f"{kind} {_text(request, 'namespace')}/{_text(request, 'name')}: {message}",
        "details": {"kind": kind, "name": _text(request, "name"), "causes": [cause]},
    }
