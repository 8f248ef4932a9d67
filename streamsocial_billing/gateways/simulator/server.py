"""The process of the simulated gateway, from its start to a signal."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from aiohttp import web

from streamsocial_billing.gateways.simulator.ledger import Ledger
from streamsocial_billing.gateways.simulator.ledger_file import LedgerUnusable
from streamsocial_billing.gateways.simulator.routes import Simulator
from streamsocial_billing.logs.setup import set_up

logger = logging.getLogger("streamsocial_billing.gateways.simulator")

STOP_WITHIN_S = 0.5
"""How long replies under way may take to end after SIGTERM; held ones are dropped then."""


class CannotListen(Exception):
    """Raised when the address cannot be listened on."""


async def serve(host: str, port: int, ledger: Path, names: Sequence[str] = ()) -> None:
    """Serve until SIGTERM or SIGINT; says its address in the log once it listens (port 0: a free one).

    `names` are hosts by which others call it, beside addresses. Raises LedgerUnusable or CannotListen.
    """
    stop = asyncio.Event()
    for signum in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(signum, stop.set)
    books = Ledger(ledger)
    await books.open()
    runner = web.AppRunner(
        Simulator(books, names).application(), access_log=None, shutdown_timeout=STOP_WITHIN_S,
        keepalive_timeout=75,
    )  # fmt: skip
    try:
        await runner.setup()
        await _listen(runner, host, port)
        address = runner.addresses[0]
        logger.info("listening at http://%s:%d ledger %s", host, address[1], ledger)
        await stop.wait()
        logger.info("stopped: asked by a signal")
    finally:
        await runner.cleanup()
        await books.close()


async def _listen(runner: web.AppRunner, host: str, port: int) -> None:
    try:
        await web.TCPSite(runner, host, port, backlog=1024).start()
    except (OSError, OverflowError) as error:
        errno = error.errno if isinstance(error, OSError) else None
        reason = os.strerror(errno) if errno and errno > 0 else str(error)
        raise CannotListen(f"cannot listen on {host}:{port}: {reason}; choose another --port") from error


def run(
    host: str, port: int, ledger: str | Path, log_format: str = "text", names: Sequence[str] = ()
) -> int:  # fmt: skip
    """Serve until told to stop; returns the exit code, after one line on stderr where it is not 0.

    The log goes to stdout, which has nothing else.
    """
    set_up(form=log_format, stream=sys.stdout)
    try:
        asyncio.run(serve(host, port, Path(ledger), names))
    except (LedgerUnusable, CannotListen) as error:
        print(f"gateway simulator: {error}", file=sys.stderr)
        return 1
    return 0
