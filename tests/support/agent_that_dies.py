"""The agent's process, killed by itself at a checkpoint: `python -m tests.support.agent_that_dies "before ATTACH"`."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys

from ambient.agent.server import serve
from ambient.agent.settings import AgentSettings
from ambient.settings import read_settings


def main(where: str) -> None:
    def checkpoint(_uid: str, here: str) -> None:
        if here == where:
            os.kill(os.getpid(), signal.SIGKILL)

    logging.basicConfig(level=logging.INFO)
    asyncio.run(serve(read_settings(AgentSettings, os.environ), checkpoint=checkpoint))


if __name__ == "__main__":
    main(sys.argv[1])
