"""What a run of the Gateway API's conformance suite is told, and what came of it, test by test. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final

_RESULT: Final = re.compile(r"^ {4}--- (PASS|FAIL|SKIP): Conformance/(\w+) \(")
_PART: Final = re.compile(r"^ {8,}--- FAIL: Conformance/(\w+)/(\S+) \(")
_SKIPPED: Final = re.compile(r"Skipping (\w+): (.+)$")
_UNSUPPORTED: Final = re.compile(r"suite does not support (\w+)$")


@dataclass(frozen=True, slots=True)
class Profile:
    """`title` as the suite calls it. `extended`: features that we say we have beside its core. `kinds`: features that
    tell its tests from other profiles': with all of `has`, and none of `without`. `gateways`: it is about Gateways for
    clients outside of the mesh."""

    title: str
    extended: tuple[str, ...]
    has: frozenset[str]
    without: frozenset[str] = frozenset()
    gateways: bool = False
    refused: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    """Tests that are not run, and why."""

    def concerns(self, features: Iterable[str]) -> bool:
        given = set(features)
        return self.has <= given and not self.without & given


@dataclass(slots=True)
class Outcome:
    """Of one profile. `failed`: by test the parts of it that failed; `skipped`: by test the reason."""

    passed: list[str] = field(default_factory=list)
    failed: dict[str, list[str]] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)


_ROUTES: Final = frozenset({"TLSRoute", "TCPRoute", "UDPRoute"})
_OF_ROUTES: Final = (
    *("HTTPRouteResponseHeaderModification", "HTTPRouteParentRefPort"),
    *("HTTPRoute303RedirectStatusCode", "HTTPRoute307RedirectStatusCode", "HTTPRoute308RedirectStatusCode"),
)
_OF_MESHES: Final = (
    *("MeshClusterIPMatching", "MeshHTTPRouteRewritePath", "MeshHTTPRouteSchemeRedirect"),
    *("MeshHTTPRouteRedirectPort", "MeshHTTPRouteRedirectPath", "MeshHTTPRouteBackendRequestHeaderModification"),
    *("MeshHTTPRouteQueryParamMatching", "MeshHTTPRouteNamedRouteRule", "MeshConsumerRoute"),
)
_PAST_WAYPOINT: Final = (
    "asks a pod by its own address past the waypoint of its service, which is refused by default "
    "(AMBIENT_WAYPOINTS=istio permits it)"
)
_OF_GATEWAYS: Final = (
    *_OF_ROUTES,
    *("HTTPRouteBackendRequestHeaderModification", "HTTPRouteQueryParamMatching", "HTTPRouteMethodMatching"),
    *("HTTPRoutePortRedirect", "HTTPRouteSchemeRedirect", "HTTPRoutePathRedirect", "HTTPRouteHostRewrite"),
    *("HTTPRoutePathRewrite", "HTTPRouteRequestMirror", "HTTPRouteRequestMultipleMirrors"),
    *("HTTPRouteRequestPercentageMirror", "HTTPRouteRequestTimeout", "HTTPRouteBackendTimeout"),
    *("HTTPRouteBackendProtocolH2C", "HTTPRouteBackendProtocolWebSocket", "HTTPRouteNamedRouteRule"),
    *("GatewayPort8080", "GatewayHTTPListenerIsolation", "GatewayInfrastructurePropagation", "GatewayAddressEmpty"),
    *("GatewayHTTPSListenerDetectMisdirectedRequests", "GatewayFrontendClientCertificateValidation"),
    *("GatewayFrontendClientCertificateValidationInsecureFallback", "BackendTLSPolicy"),
    *("BackendTLSPolicySANValidation", "HTTPRouteCORS", "GatewayBackendClientCertificate"),
)
_EXPERIMENTAL: Final = "of the experimental channel, whose CRDs are not used here"
UNCLAIMED: Final[Mapping[str, str]] = MappingProxyType(
    {
        "GatewayStaticAddresses": "needs a load balancer that gives the addresses that are asked for",
        "ListenerSet": "a Gateway has its own listeners alone",
        "HTTPRouteDestinationPortMatching": _EXPERIMENTAL,
        "HTTPRouteRetry": _EXPERIMENTAL,
        "HTTPRouteRetryBackendTimeout": _EXPERIMENTAL,
        "HTTPRouteRetryConnectionError": _EXPERIMENTAL,
    }
)
"""Features that we do not say we have, and why. What is of no use to a profile has no row."""
PROFILES: Final[Mapping[str, Profile]] = MappingProxyType(
    {
        "mesh-http": Profile(
            "MESH-HTTP",
            (*_OF_MESHES, *_OF_ROUTES),
            frozenset({"Mesh"}),
            _ROUTES | {"GRPCRoute"},
            refused=MappingProxyType({"MeshFrontend": _PAST_WAYPOINT}),
        ),
        "mesh-grpc": Profile("MESH-GRPC", _OF_MESHES, frozenset({"Mesh"}), _ROUTES | {"HTTPRoute"}),
        "gateway-http": Profile(
            "GATEWAY-HTTP",
            _OF_GATEWAYS,
            frozenset({"Gateway"}),
            _ROUTES | {"GRPCRoute", "Mesh"},
            gateways=True,
        ),
        "gateway-grpc": Profile(
            "GATEWAY-GRPC",
            ("GatewayInfrastructurePropagation", "GatewayAddressEmpty", "GRPCRouteNamedRouteRule"),
            frozenset({"Gateway"}),
            _ROUTES | {"HTTPRoute", "Mesh"},
            gateways=True,
        ),
    }
)


def read_tests(printed: str) -> dict[str, tuple[str, ...]]:
    """The features of each test, from what the program prints of them (`Name ! [A B]`)."""
    found = {}
    for line in printed.splitlines():
        name, _, rest = line.partition(" ")
        found[name] = tuple(rest.partition("[")[2].rstrip("]").split())
    return found


def read_outcome(log: Iterable[str], tests: Sequence[str]) -> Outcome:
    """Of these tests what the log of a run (`-test.v`) says; one that it does not tell of has failed."""
    told: dict[str, str] = {}
    parts: dict[str, list[str]] = {}
    reasons: dict[str, str] = {}
    for line in log:
        if match := _RESULT.match(line):
            told[match[2]] = match[1]
        elif match := _PART.match(line):
            parts.setdefault(match[1], []).append(match[2])
        elif match := _SKIPPED.search(line):
            reasons[match[1]] = match[2].strip()
    found = Outcome()
    for name in tests:
        match told.get(name):
            case "PASS":
                found.passed.append(name)
            case "SKIP":
                found.skipped[name] = reasons.get(name, "")
            case "FAIL":
                found.failed[name] = parts.get(name, [])
            case _:
                found.failed[name] = ["the run ended before it"]
    return found


def recorded(outcome: Outcome, profile: Profile) -> dict[str, Any]:
    """As it is kept."""
    skipped = {name: profile.refused.get(name) or _reason(why) for name, why in outcome.skipped.items()}
    return {
        "profile": profile.title,
        "passed": sorted(outcome.passed),
        "failed": dict(sorted(outcome.failed.items())),
        "skipped": dict(sorted(skipped.items())),
    }


def _reason(said: str) -> str:
    """Why a test is not run: with the feature that it would need, our own reason."""
    match = _UNSUPPORTED.search(said)
    return f"{match[1]}: {UNCLAIMED[match[1]]}" if match and match[1] in UNCLAIMED else said
