"""Where data is kept by default: under `data/`, or where an earlier release left it."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from faust.types import _env

FAUST_DEFAULT: Final = "{conf.name}-data"
"""Faust's own default of --datadir."""
LEDGER: Final = Path("data/gateway.sqlite")
"""The ledger of `gateway`, the simulator."""


def default_folder(app_id: str) -> Path | None:
    """The data folder of an app without --datadir; None: the command line or the environment names one.

    One that an earlier release made here is used on: its tables could be read from Kafka again, but an
    intake's id is in it, too, and ends what a killed intake left open.
    """
    if _env.DATADIR != FAUST_DEFAULT:
        return None
    return _of_whatever_release(Path("data") / app_id, Path(f"{app_id}-data"))


def default_ledger() -> Path:
    """The ledger of `gateway` without --ledger; one of an earlier release is used on."""
    return _of_whatever_release(LEDGER, Path("gateway.sqlite"))


def note_on(used: Path, app_id: str) -> str | None:
    """One line about a folder or ledger that is still where an earlier release left it; else None."""
    if used == Path(f"{app_id}-data"):
        better = Path("data") / app_id
    elif used == Path("gateway.sqlite"):
        better = LEDGER
    else:
        return None
    return f"{used}, of an earlier release, is still used: move it to {better} while nothing runs on it"


def _of_whatever_release(now: Path, before: Path) -> Path:
    return before if before.exists() and not now.exists() else now
