"""`python -m ztunnel.worker --slot N --socket PATH`: the process around a Worker."""

from __future__ import annotations

import argparse
import asyncio
import gc
import signal
import ssl
import sys

from ztunnel import compiled


def prepare(form: compiled.Form | None = None) -> str:
    """Import everything that workers run, and have OpenSSL read its configuration: all that can be done before a fork.
    Says what it is that runs. `form`: of what has been imported already."""
    form = form or compiled.use()
    # Not before the compiled modules, if there are any, are the ones that are found.
    import ztunnel.worker.worker  # noqa: F401

    ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    return f"{form}, {ssl.OPENSSL_VERSION}"


async def _serve(slot: int, path: str, form: str) -> None:
    from ztunnel.proxy.loop import running
    from ztunnel.worker.worker import Worker

    loop = running()
    finished = asyncio.Event()
    # The supervisor ends us through the director's Drain; a terminal's signal must not come before it.
    loop.add_signal_handler(signal.SIGINT, lambda: None)
    loop.add_signal_handler(signal.SIGTERM, finished.set)
    Worker(loop, slot, path, finished.set, form=form).start()
    gc.collect()
    gc.freeze()
    await finished.wait()


def main(arguments: list[str], form: str | None = None) -> int:
    """Run until drained or told to end. Returns the exit code. `form`: what `prepare` said, if it was called before."""
    parser = argparse.ArgumentParser(prog="ztunnel.worker", description=__doc__)
    parser.add_argument("--slot", type=int, required=True, help="number of this worker, from 0")
    parser.add_argument("--socket", required=True, help="path of the director's socket")
    options = parser.parse_args(arguments)
    form = form or prepare()
    from ztunnel.proxy.loop import Loop

    with asyncio.Runner(loop_factory=Loop) as runner:
        runner.run(_serve(options.slot, options.socket, form))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
