"""The same system, left running."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.live import Live
from rich.text import Text

from streamsocial_billing.settings import Settings
from streamsocial_billing.showcase.child import console_script, shown
from streamsocial_billing.showcase.folder import Folder
from streamsocial_billing.showcase.system import System, ask

LOOK_EVERY_S: Final = 1.0
# the README's: who tries both sees a replay
EXAMPLE: Final = (
    '{"payment_id":"demo-1","user_id":"alice","product":"gift",'
    '"amount_minor":999,"currency":"USD","payment_method":"pm_card_visa"}'
)


def up(folder: Folder, environ: Mapping[str, str], console: Console) -> int:
    """Start everything over the data of the last time; stay until a signal, which is raised as Stopped."""
    system = System(folder, environ, {}, lambda text: console.print(text, highlight=False))
    try:
        system.start()
        for line in instructions(system.settings, system.workers[0].url, folder.path):
            console.print(line, highlight=False, markup=False, soft_wrap=True)
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
    exports = [f"export {name}={value}" for name, (value, default) in addresses.items() if value != default]
    command = f"{shown(Path(console_script()))} --datadir={shown(folder / 'client')}"
    return [
        "",
        f"dashboard  {dashboard}/",
        f"logs       {shown(folder / 'logs')}",
        "",
        "In another terminal (send it twice: the second one is a replay):",
        *(f"  {line}" for line in exports),
        f"  echo '{EXAMPLE}' | {command} submit -",
        f"  {command} results",
        f"  curl {dashboard}/users/alice/charges",
        "",
        "Ctrl-C stops everything; the data stay.",
    ]


def _stay(system: System, console: Console) -> None:
    last = ""
    live = Live(console=console, auto_refresh=False) if console.is_terminal else None
    if live is not None:
        live.start()
    try:
        while True:
            system.watch()
            system.look()
            line = _status(system)
            if line != last and live is not None:
                live.update(Text(line), refresh=True)
            elif line != last:
                console.print(line, highlight=False)
            last = line
            time.sleep(LOOK_EVERY_S)
    finally:
        if live is not None:
            live.stop()


def _status(system: System) -> str:
    stats = ask(f"{system.gateway_url}/_stats", within_s=1) or {}
    states = "   ".join(f"{worker.name}: {worker.state}" for worker in system.workers)
    return f"{states}   gateway: {stats.get('charges', '?')} charges"
