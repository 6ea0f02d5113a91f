"""For the mistakes that people make, what right looks like. Found by the field that is wrong. Pure."""

from __future__ import annotations

import re
from typing import Final

_BY_FIELD: Final = tuple(
    (re.compile(pattern), example)
    for pattern, example in (
        (r"\.(notP|p)rincipals\[\d+\]$", '["cluster.local/ns/shop/sa/web"]'),
        (r"\.(not)?[Rr]equestPrincipals\[\d+\]$", '["issuer.example.com/*"]'),
        (r"\.(not)?[Nn]amespaces\[\d+\]$", '["shop"]'),
        (r"\.(not)?[Ss]erviceAccounts(\[\d+\])?$", '["shop/web"]'),
        (r"\.(not)?([Rr]emote)?[Ii]pBlocks\[\d+\]$", '["10.1.0.0/16"]'),
        (r"\.(notP|p)orts\[\d+\]$", '["8080"] (a string: a port is quoted)'),
        (r"\.operation\.(not)?([Hh]osts|[Mm]ethods|[Pp]aths)", 'methods: ["GET"], paths: ["/api/*"]'),
        (r"\.when\[\d+\]\.key$", "key: source.namespace, values: [shop]"),
        (r"\.when\[\d+\]", "{key: source.namespace, values: [shop]}"),
        (r"\.source$", "source: {namespaces: [shop]}"),
        (r"\.operation$", 'operation: {ports: ["8080"]}'),
        (r"\.rules\[\d+\]\.from", "from: [{source: {namespaces: [shop]}}]"),
        (r"\.rules\[\d+\]\.to", 'to: [{operation: {ports: ["8080"]}}]'),
        (r"^spec\.rules", 'rules: [{from: [{source: {namespaces: [shop]}}], to: [{operation: {ports: ["8080"]}}]}]'),
        (r"^spec\.action$", "action: DENY"),
        (r"^spec\.provider", "action: CUSTOM, provider: {name: my-authorizer}"),
        (r"^spec\.selector", "selector: {matchLabels: {app: web}}"),
        (r"^spec\.targetRefs?", "targetRefs: [{kind: Service, name: web}]"),
        (r"^spec\.mtls", "mtls: {mode: STRICT}"),
        (r"^spec\.portLevelMtls", "selector: {matchLabels: {app: web}}, portLevelMtls: {8080: {mode: PERMISSIVE}}"),
        (r"^spec\.hosts", 'hosts: ["db.example.com"]'),
        (r"^spec\.addresses", 'addresses: ["10.9.0.7"]'),
        (r"^spec\.ports", "ports: [{number: 5432, name: tcp-postgres, protocol: TCP}]"),
        (r"^spec\.resolution$", "resolution: STATIC, endpoints: [{address: 192.0.2.7}]"),
        (r"^spec\.location$", "location: MESH_EXTERNAL"),
        (r"^spec\.endpoints", "endpoints: [{address: 192.0.2.7}]"),
        (r"^spec\.address$", "address: 192.0.2.7"),
        (r"^spec\.host$", "host: web.shop.svc.cluster.local"),
        (r"^spec\.listeners", "listeners: [{name: mesh, port: 15008, protocol: HBONE}]"),
        (r"^spec\.gatewayClassName", "gatewayClassName: istio-waypoint"),
        (r"^spec\.jwtRules", "jwtRules: [{issuer: https://issuer.example.com}]"),
        (r"^metadata\.labels", "labels: {app: web}"),
        (r"^metadata\.annotations", 'annotations: {istio.io/dry-run: "true"}'),
        (r"^metadata\.name$", "name: allow-web"),
    )
)


def example(field: str) -> str:
    """What could stand at this field path ("spec.rules[0].to"); "" when we know of no good example."""
    return next((text for pattern, text in _BY_FIELD if pattern.search(field)), "")
