"""The CA client against a real control plane, and the whole way from a wish to a certificate."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from pathlib import Path

import pytest

from ambient.errors import Refused, Unavailable
from tests.support.control import ControlBench
from ztunnel.director.ca_client import CaClient
from ztunnel.director.issue import KeyRequest

PODS = """
apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: shop}
spec: {nodeName: n1, serviceAccountName: web, containers: [{name: c, image: none, command: [sleep]}]}
status: {phase: Running, podIPs: [{ip: 10.0.1.2}]}
---
"""
WEB = "spiffe://cluster.local/ns/shop/sa/web"


def test_a_pods_identity_is_signed_and_a_strangers_is_refused(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with ControlBench(tmp_path) as control:
            control.apply(PODS)
            client = CaClient(control.client(), 3600)
            issued = None
            async with asyncio.timeout(10):
                while issued is None:
                    request = KeyRequest(WEB)
                    try:
                        issued = request.accept(await client.sign(WEB, request.csr_pem), time.time())
                    except Refused:
                        # The control plane has not read the folder yet.
                        continue
            assert 0 < issued.not_after - time.time() <= 3700
            with pytest.raises(Refused):
                await client.sign(WEB.replace("web", "other"), KeyRequest(WEB).csr_pem)

    asyncio.run(scenario())


def test_a_ca_that_is_not_there_and_missing_files_are_unavailable(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with ControlBench(tmp_path) as control:
            settings = control.client()
        for broken in (settings, replace(settings, root=tmp_path / "none"), replace(settings, token=tmp_path / "none")):
            with pytest.raises(Unavailable):
                await CaClient(broken, 60).sign(WEB, KeyRequest(WEB).csr_pem)

    asyncio.run(scenario())
