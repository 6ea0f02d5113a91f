"""`python -m ambient.lab.kubelet --name LAB --node NODE --number N`: started by the lab's supervisor, in the node."""

from __future__ import annotations

import argparse
import asyncio
import signal

from ambient.lab.kubelet.node import Kubelet
from ambient.lab.names import Names, lab_name
from ambient.lab.settings import load


async def _run(kubelet: Kubelet) -> None:
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    try:
        await kubelet.run()
    except asyncio.CancelledError:
        return


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m ambient.lab.kubelet")
    parser.add_argument("--name", required=True)
    parser.add_argument("--node", required=True)
    parser.add_argument("--number", required=True, type=int)
    args = parser.parse_args()
    settings = load(Names(lab_name(args.name)))
    asyncio.run(_run(Kubelet(settings, args.node, args.number)))


if __name__ == "__main__":
    main()
