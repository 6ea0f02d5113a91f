"""Pod: what to run, where, how to probe it, which addresses it got.

What the lab cannot do (exec probes, values from ConfigMaps) is refused in files, and passed over in pods that a
live API server shows us: there the kubelet does it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from ambient.errors import InvalidInput
from ambient.kube import syntax
from ambient.kube.metadata import Shape, read_common
from ambient.kube.read import Field, Object
from ambient.kube.records import Container, ContainerPort, EnvVar, HttpGet, Pod, Probe, TcpSocket
from ambient.model.address import IpAddress, parse_ip, port_number

SHAPE: Final = Shape(("v1",), True, syntax.dns_subdomain, ("spec",))
POD_IPS: Final = "ambient.mesh/pod-ips"
"""Annotation (lab): comma-separated addresses the pod wants instead of ones from its node's range."""

_SPEC: Final = syntax.words(
    "activeDeadlineSeconds affinity automountServiceAccountToken containers dnsConfig dnsPolicy enableServiceLinks"
    " ephemeralContainers hostAliases hostIPC hostNetwork hostPID hostUsers hostname imagePullSecrets initContainers"
    " nodeName nodeSelector os overhead preemptionPolicy priority priorityClassName readinessGates resourceClaims"
    " resources restartPolicy runtimeClassName schedulerName schedulingGates securityContext serviceAccount"
    " serviceAccountName setHostnameAsFQDN shareProcessNamespace subdomain terminationGracePeriodSeconds tolerations"
    " topologySpreadConstraints volumes"
)
_CONTAINER: Final = syntax.words(
    "name image command args env workingDir ports readinessProbe livenessProbe startupProbe imagePullPolicy lifecycle"
    " resizePolicy resources restartPolicy securityContext stdin stdinOnce terminationMessagePath"
    " terminationMessagePolicy tty volumeDevices volumeMounts"
)
_DOWNWARD: Final = (
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.podIP",
    "status.podIPs",
)
_PROTOCOLS: Final = ("TCP", "UDP", "SCTP")
_PHASES: Final = ("Pending", "Running", "Succeeded", "Failed", "Unknown")
_DAY: Final = 86400


def parse_pod(top: Object, raw: Mapping[str, Any]) -> Pod:
    """Raises InvalidInput; every rule has its row in the tests."""
    common = read_common(top, SHAPE, raw)
    spec = top.need("spec").object(_SPEC)
    containers = tuple(_container(field) for field in spec.need("containers").items())
    if not containers:
        raise spec.need("containers").refuse("a pod needs at least one container")
    _distinct(spec.need("containers"), [c.name for c in containers], "container")
    status = top.get("status")
    seen = status.open_object() if status else Object(Field({}, "status", top.at.what))
    wanted = common["annotations"].get(POD_IPS, "")
    at = Field(wanted, f"metadata.annotations[{POD_IPS}]", top.at.what)
    account = spec.get("serviceAccountName") or spec.get("serviceAccount")
    ready = any(c.type == "Ready" and c.status == "True" for c in common["conditions"])
    host_ip = seen.text("hostIP")
    return Pod(
        **common,
        node_name=spec.read("nodeName", lambda field: field.checked(syntax.dns_subdomain), ""),
        service_account=account.checked(syntax.dns_subdomain) if account else "default",
        host_network=spec.flag("hostNetwork"),
        hostname=spec.read("hostname", lambda field: field.checked(syntax.dns_label), ""),
        subdomain=spec.read("subdomain", lambda field: field.checked(syntax.dns_label), ""),
        restart_policy=spec.read("restartPolicy", lambda f: f.one_of(("Always", "OnFailure", "Never")), "Always"),
        grace_s=spec.integer("terminationGracePeriodSeconds", 30, 0, 10 * _DAY),
        containers=containers,
        wanted_ips=tuple(_address(at, part.strip()) for part in wanted.split(",")) if wanted else (),
        ips=_pod_ips(seen),
        host_ip=_address(seen.need("hostIP"), host_ip) if host_ip else None,
        phase=seen.read("phase", lambda field: field.one_of(_PHASES), ""),
        ready=seen.flag("ready", ready),
        owner=_owner(top),
    )


def _address(field: Field, text: str) -> IpAddress:
    try:
        return parse_ip(text)
    except InvalidInput:
        raise field.refuse(f"{text!r} is not an IP address") from None


def _pod_ips(status: Object) -> tuple[IpAddress, ...]:
    several = status.each("podIPs", lambda f: (f, f.open_object().need("ip").text()))
    if not several and status.get("podIP") is not None:
        several = ((status.need("podIP"), status.text("podIP")),)
    return tuple(_address(field, text) for field, text in several if text)


def _owner(top: Object) -> tuple[str, str] | None:
    owners = top.need("metadata").open_object().each("ownerReferences", Field.open_object)
    for owner in owners:
        if owner.flag("controller"):
            return owner.need("kind").text(), owner.need("name").text()
    return None


def _distinct(field: Field, names: list[str], what: str) -> None:
    for name in names:
        if name and names.count(name) > 1:
            raise field.refuse(f"two entries are called {name!r}; a {what} needs its own name")


def _container(field: Field) -> Container:
    entry = field.object(_CONTAINER)
    ports = entry.each("ports", _container_port)
    if ports:
        _distinct(entry.need("ports"), [port.name for port in ports], "port")
    named = {port.name: port.port for port in ports if port.name}
    return Container(
        name=entry.need("name").checked(syntax.dns_label),
        image=entry.text("image"),
        command=entry.texts("command"),
        args=entry.texts("args"),
        env=entry.each("env", _env),
        working_dir=entry.read("workingDir", lambda f: f.checked(_absolute), ""),
        ports=ports,
        readiness=entry.read("readinessProbe", lambda f: _probe(f, named, readiness=True), None),
        liveness=entry.read("livenessProbe", lambda f: _probe(f, named, readiness=False), None),
        startup=entry.read("startupProbe", lambda f: _probe(f, named, readiness=False), None),
    )


def _absolute(value: str) -> str:
    return "" if value.startswith("/") else f"{value!r} is not an absolute path"


def _container_port(field: Field) -> ContainerPort:
    entry = field.object(("containerPort", "name", "protocol", "hostPort", "hostIP"))
    return ContainerPort(
        entry.need("containerPort").port(),
        entry.read("name", lambda f: f.checked(syntax.port_name), ""),
        entry.read("protocol", lambda f: f.one_of(_PROTOCOLS), "TCP"),
    )


def _env(field: Field) -> EnvVar:
    entry = field.object(("name", "value", "valueFrom"))
    name = entry.need("name").checked(syntax.env_name)
    source = entry.get("valueFrom")
    if source is None:
        return EnvVar(name, entry.text("value"))
    if entry.text("value"):
        raise source.refuse("may not stand beside value")
    if field.observed:
        return EnvVar(name)
    for other in ("configMapKeyRef", "secretKeyRef", "resourceFieldRef", "fileKeyRef"):
        if source.open_object().get(other) is not None:
            raise source.refuse(f"{other} is not supported; use value or fieldRef")
    reference = source.object(("fieldRef",)).need("fieldRef").object(("fieldPath", "apiVersion"))
    return EnvVar(name, field_path=reference.need("fieldPath").one_of(_DOWNWARD))


def _probe(field: Field, named: Mapping[str, int], *, readiness: bool) -> Probe | None:
    entry = field.object(
        syntax.words(
            "httpGet tcpSocket exec grpc initialDelaySeconds periodSeconds timeoutSeconds successThreshold"
            " failureThreshold terminationGracePeriodSeconds"
        )
    )
    if field.observed and entry.present("exec", "grpc"):
        return None
    for unsupported in entry.present("exec", "grpc"):
        raise entry.need(unsupported).refuse("probes of this kind are not supported; use httpGet or tcpSocket")
    actions = entry.present("httpGet", "tcpSocket")
    if len(actions) != 1:
        raise field.refuse("a probe needs exactly one of httpGet and tcpSocket")
    success = entry.integer("successThreshold", 1, 1, 1000)
    if success != 1 and not readiness:
        raise entry.need("successThreshold").refuse("must be 1 for liveness and startup probes")
    return Probe(
        action=_http_get(entry.need("httpGet"), named)
        if "httpGet" in actions
        else _tcp(entry.need("tcpSocket"), named),
        initial_delay_s=entry.integer("initialDelaySeconds", 0, 0, _DAY),
        period_s=entry.integer("periodSeconds", 10, 1, _DAY),
        timeout_s=entry.integer("timeoutSeconds", 1, 1, _DAY),
        success_threshold=success,
        failure_threshold=entry.integer("failureThreshold", 3, 1, 1000),
    )


def _probe_port(field: Field, named: Mapping[str, int]) -> int:
    if isinstance(field.value, str) and not (field.value.isascii() and field.value.isdigit()):
        if field.value not in named:
            raise field.refuse(f"no port of this container is called {field.value!r}")
        return named[field.value]
    if isinstance(field.value, str):
        number = port_number(field.value)
        if not number:
            raise field.refuse(f"{field.value[:40]} is not a port (1..65535)")
        return number
    return field.port()


def _http_get(field: Field, named: Mapping[str, int]) -> HttpGet:
    entry = field.object(("path", "port", "scheme", "host", "httpHeaders"))
    return HttpGet(
        _probe_port(entry.need("port"), named),
        entry.read("path", lambda f: f.checked(_absolute), "/"),
        entry.read("scheme", lambda f: f.one_of(("HTTP", "HTTPS")), "HTTP"),
        entry.text("host"),
        entry.each("httpHeaders", _header),
    )


def _header(field: Field) -> tuple[str, str]:
    entry = field.object(("name", "value"))
    return entry.need("name").checked(syntax.header_name), entry.read(
        "value", lambda f: f.checked(syntax.header_value), ""
    )


def _tcp(field: Field, named: Mapping[str, int]) -> TcpSocket:
    entry = field.object(("port", "host"))
    return TcpSocket(_probe_port(entry.need("port"), named), entry.text("host"))
