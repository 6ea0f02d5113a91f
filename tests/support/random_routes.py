"""HTTPRoutes, drawn at random: matches, filters, backends."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tests.support.builders import raw
from tests.support.random_traffic import API, Traffic
from tests.support.random_words import EXPRESSIONS, HEADERS, PARTS, Words


class Routes:
    """To one service, by its name and ports."""

    def __init__(self, words: Words, name: str, ports: list[int], traffic: Traffic) -> None:
        self._words = words
        self._rng = words.rng
        self._name = name
        self._ports = ports
        self._traffic = traffic

    def route(self, number: int, parent: dict[str, Any], hosts: Sequence[str] = ()) -> dict[str, Any]:
        """An HTTPRoute; `hosts`: some of which it may be for."""
        words = self._words
        spec: dict[str, Any] = {"parentRefs": [parent], "rules": words.several(self._route_rule, 1, 1, 2, 8)}
        if hosts:
            spec["hostnames"] = words.rng.sample(sorted(hosts), words.rng.randint(0, len(hosts)))
        made = raw("HTTPRoute", f"{self._name}-r{number}", spec, namespace="shop", annotations=self._traffic.limits())
        return {**made, "apiVersion": API}

    def _route_rule(self) -> dict[str, Any]:
        rng = self._rng
        prefixes = rng.random() < 0.5
        made: dict[str, Any] = {"matches": [self._match(prefixes) for _ in range(rng.choice((1, 1, 2, 8)))]}
        filters = [self._filter(kind, prefixes) for kind in rng.sample(range(6), rng.randint(0, 3))]
        made["filters"] = filters
        if not any(one["type"] == "RequestRedirect" for one in filters):
            made["backendRefs"] = self._words.several(self._traffic.backend, 0, 1, 1, 2, 3)
        if rng.random() < 0.3:
            made["timeouts"] = {"request": rng.choice(("0s", "1ms", "10s", "99999h")), "backendRequest": "1ms"}
        if rng.random() < 0.2:
            made["retry"] = {"attempts": rng.choice((0, 1, 9)), "codes": [500, 599], "backoff": "1ms"}
        if rng.random() < 0.2:
            made["sessionPersistence"] = self._session()
        return made

    def _session(self) -> dict[str, Any]:
        name = self._words.one("s", "x-session", self._words.text(12))
        lasting = {"absoluteTimeout": "1h", "cookieConfig": {"lifetimeType": "Permanent"}}
        return {"sessionName": name, **self._words.one({"type": "Header"}, {"type": "Cookie"}, lasting)}

    def _match(self, prefix: bool) -> dict[str, Any]:
        rng = self._rng
        kind = "PathPrefix" if prefix else rng.choice(("Exact", "RegularExpression", "PathPrefix"))
        value = (
            rng.choice(EXPRESSIONS) if kind == "RegularExpression" else rng.choice((*PARTS, f"/{self._words.text(20)}"))
        )
        made: dict[str, Any] = {"path": {"type": kind, "value": value}}
        for field in ("headers", "queryParams"):
            if rng.random() < 0.3:
                made[field] = [self._named(field) for _ in range(rng.randint(1, 3))]
        if rng.random() < 0.3:
            made["method"] = rng.choice(("GET", "CONNECT", "PATCH"))
        return made

    def _named(self, field: str) -> dict[str, Any]:
        rng = self._rng
        name = rng.choice(HEADERS) if field == "headers" else rng.choice(("q", self._words.text(20)))
        if rng.random() < 0.4:
            return {"name": name, "type": "RegularExpression", "value": rng.choice(EXPRESSIONS)}
        return {"name": name, "value": self._words.text()}

    def _filter(self, kind: int, prefix: bool) -> dict[str, Any]:
        rng = self._rng
        path = (
            {"type": "ReplacePrefixMatch", "replacePrefixMatch": rng.choice(("", *PARTS))}
            if prefix
            else {"type": "ReplaceFullPath", "replaceFullPath": rng.choice(("", *PARTS))}
        )
        if kind in (0, 1):
            side = ("request", "response")[kind]
            edit = {
                "set": [{"name": rng.choice(HEADERS), "value": self._words.text()}],
                "add": [{"name": "x-b", "value": rng.choice(("%", "%REQ(x)%", "%%START_TIME%", self._words.text()))}],
                "remove": ["x-c", rng.choice(HEADERS)],
            }
            chosen = {name: edit[name] for name in rng.sample(sorted(edit), rng.randint(1, 3))}
            return {"type": f"{side.capitalize()}HeaderModifier", f"{side}HeaderModifier": chosen}
        if kind == 2:
            made = {"scheme": "https", "hostname": "x.example.com", "port": 8443, "path": path, "statusCode": 307}
            chosen = {name: made[name] for name in rng.sample(sorted(made), rng.randint(0, 4))}
            return {"type": "RequestRedirect", "requestRedirect": chosen}
        if kind == 3:
            rewrite = {"hostname": "h.example.com", "path": path}
            chosen = {name: rewrite[name] for name in rng.sample(sorted(rewrite), rng.randint(0, 2))}
            return {"type": "URLRewrite", "urlRewrite": chosen}
        if kind == 4:
            origins = ["*", "https://a.example.com", "https://*.example.com:8443"]
            made = {
                "allowOrigins": origins,
                "allowMethods": rng.choice((["GET"], ["*"], ["GET", "*"])),
                "allowHeaders": [rng.choice(("*", "x-%", rng.choice(HEADERS)))],
                "exposeHeaders": [rng.choice(("*", "%x%", rng.choice(HEADERS)))],
                "maxAge": 2**31 - 1,
                "allowCredentials": rng.random() < 0.7,
            }
            return {
                "type": "CORS",
                "cors": {name: made[name] for name in rng.sample(sorted(made), rng.choice((1, 3, 6, 6)))},
            }
        return {
            "type": "RequestMirror",
            "requestMirror": {"backendRef": {"name": self._name, "port": self._ports[0]}, "percent": 7},
        }
