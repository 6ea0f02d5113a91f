"""What the client makes of a control plane that is not there; the rest is tests/ambient/control/test_join_rpc.py."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from ambient.errors import Unavailable
from ambient.join.client import JoinClient
from tests.support.control import ControlBench


def test_a_control_plane_that_does_not_answer_is_unavailable(tmp_path: Path) -> None:
    root = ControlBench(tmp_path).ca / "root-cert.pem"

    async def run() -> None:
        async with JoinClient("127.0.0.1:1", root.read_text()) as client:
            with pytest.raises(Unavailable, match=r"control plane 127\.0\.0\.1:1: Join"):
                await client.call("Join", {})

    asyncio.run(run())
