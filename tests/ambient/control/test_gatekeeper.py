"""Admission within a control plane: its webhook speaks by the authority's certificate and knows the objects of now."""

from __future__ import annotations

import asyncio
import io
import json
import ssl
from pathlib import Path
from typing import Any

import aiohttp

from tests.support.admission import BAD, asked, policy
from tests.support.control import ControlBench, until

POD = """
{apiVersion: v1, kind: Pod, metadata: {name: db, namespace: shop, labels: {app: db}},
 spec: {nodeName: n1, containers: [{name: c, image: x, command: [a]}]}}
"""
WAITING = policy("{selector: {matchLabels: {app: db}}, rules: [{}]}")


async def reviewed(bench: ControlBench, content: dict[str, Any]) -> dict[str, Any]:
    assert bench.plane.admission is not None
    context = ssl.create_default_context(cafile=str(bench.ca / "root-cert.pem"))
    connector = aiohttp.TCPConnector(ssl=context, force_close=True)
    body = io.BytesIO(json.dumps(asked(content)).encode())
    url = f"https://127.0.0.1:{bench.plane.admission.port}/validate"
    async with (
        aiohttp.ClientSession(connector=connector) as session,
        session.post(url, data=body, server_hostname="ambient-control.ambient-system.svc") as answer,
    ):
        found: dict[str, Any] = (await answer.json())["response"]
        return found


def test_the_webhook_knows_the_objects_of_now(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with ControlBench(tmp_path, AMBIENT_WEBHOOK_LISTEN="127.0.0.1:0") as bench:
            assert not (await reviewed(bench, BAD))["allowed"]
            assert "warnings" in await reviewed(bench, WAITING)
            revision = bench.apply(POD)
            await until(lambda: bench.plane.reconciler.observed >= revision)
            assert "warnings" not in await reviewed(bench, WAITING)
            metrics = bench.plane.metrics.render()
            assert b'verdict="refused"} 1.0' in metrics

    asyncio.run(scenario())


def test_without_an_address_there_is_no_webhook(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with ControlBench(tmp_path) as bench:
            assert bench.plane.admission is None

    asyncio.run(scenario())
