"""The same system, left running: what dies is started again, until a signal ends it all."""

from __future__ import annotations

import shlex
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.live import Live
from rich.text import Text

from showcase.causes import shown
from showcase.folder import Folder
from showcase.recipe import PATH, recipe
from showcase.system import System, ask
from streamsocial_billing.gateways.simulator.customers import PAGE
from streamsocial_billing.settings import Settings

LOOK_EVERY_S: Final = 0.25
STATUS_EVERY_S: Final = 1.0


def up(folder: Folder, environ: Mapping[str, str], console: Console) -> int:
    """Start everything over the data of the last time; stay until a signal, which is raised as Stopped."""

    def say(text: str) -> None:
        console.print(text, highlight=False, markup=False, soft_wrap=True)

    system = System(folder, environ, {}, say, keep=True)
    try:
        system.start()
        for line in instructions(system.settings, system.workers[0].url, folder.path):
            say(line)
        _stay(system, console)
    finally:
        system.close()
    return 0


def instructions(settings: Settings, dashboard: str, folder: Path) -> list[str]:
    """What a user can do now; the exports are needed where an address is not the default."""
    usual = Settings()
    addresses = {
        "BILLING_BROKER": (settings.broker, usual.broker),
        "BILLING_GATEWAY_URL": (settings.simulator_url, usual.gateway_url),
    }
    exports = [
        f"export {name}={shlex.quote(value)}"  # quoted: to a shell, `;` ends a command
        for name, (value, default) in addresses.items() if value != default
    ]  # fmt: skip
    return [
        "",
        f"dashboard  {dashboard}/",
        f"customers  {settings.simulator_url}{PAGE}",
        f"logs       {shown(folder / 'logs')}",
        "",
        "In another terminal, in the checkout (the second payment is a replay):",
        *(f"  {line}" for line in (PATH, *exports, *recipe(shown(folder / "client")))),
        f"  curl {dashboard}/users/alice/charges",
        "",
        "What dies is started again. Ctrl-C stops everything; the data stay.",
    ]


def _stay(system: System, console: Console) -> None:
    last, next_status = "", 0.0
    live = Live(console=console, auto_refresh=False) if console.is_terminal else None
    if live is not None:
        live.start()
    try:
        while True:
            system.watch()
            if time.monotonic() >= next_status:
                next_status = time.monotonic() + STATUS_EVERY_S
                line = _status(system)
                if line != last:
                    _show(line, live, console)
                last = line
            time.sleep(LOOK_EVERY_S)
    finally:
        if live is not None:
            live.stop()


def _show(line: str, live: Live | None, console: Console) -> None:
    if live is not None:
        live.update(Text(line), refresh=True)
    else:
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def _status(system: System) -> str:
    system.look()
    stats = ask(f"{system.gateway_url}/_stats", within_s=1)
    charges = f"{stats.get('charges', '?')} charges" if stats else "does not answer"
    states = "   ".join(f"{worker.name}: {worker.state}" for worker in system.workers)
    kafka = system.own_kafka.state if system.own_kafka is not None else ""
    return f"{kafka}{'   ' if kafka else ''}{states}   gateway: {charges}"
