"""The stable name of an intake: one transactional id for each running intake of a data folder."""

from __future__ import annotations

import os
import re
import secrets
from pathlib import Path
from typing import Final

from streamsocial_billing.kafka.committed import KafkaProblem
from streamsocial_billing.locks import lock

MAX_INTAKES: Final = 64
"""Intakes that may run on one data folder at once."""
NAME_WITHIN_S: Final = 10.0
_ID = re.compile(r"[0-9a-f]{16}")


class IntakeError(KafkaProblem):
    """Raised when payments cannot be taken in: one line that names what to do."""


class IntakeIdentity:
    """Holds one numbered id of a data folder until `release` or the end of the process.

    The id is stable, so that InitProducerId of the next intake ends what a killed one left open (KIP-98).
    Each number has a lock file: two intakes at once take two numbers, so they never fence each other.
    """

    def __init__(self, datadir: Path) -> None:
        try:
            datadir.mkdir(parents=True, exist_ok=True)
            name = _stable_name(datadir / "intake-id")
            self._lock, number = _first_free(datadir)
        except OSError as error:
            raise IntakeError(
                f"data folder {datadir} cannot be used ({error.strerror}): choose another one with --datadir"
            ) from None
        self.name = name if number == 0 else f"{name}-{number}"

    def release(self) -> None:
        """Give the number back."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


def _stable_name(path: Path) -> str:
    """The random name in this file, made by the first who comes."""
    with path.open("a+", encoding="ascii", errors="replace") as file:
        if not lock(file, NAME_WITHIN_S):
            raise IntakeError(f"another process holds {path} for {NAME_WITHIN_S:.0f} s already: end it")
        file.seek(0)
        name = file.read(64).strip()
        if not name:
            name = secrets.token_hex(8)
            file.write(name + "\n")
            file.flush()
            os.fsync(file.fileno())
    if not _ID.fullmatch(name):
        raise IntakeError(f"{path} is damaged: delete it while no intake runs, a new one is made")
    return name


def _first_free(datadir: Path) -> tuple[int, int]:
    """The descriptor of the first lock file that nobody holds, with its number."""
    for number in range(MAX_INTAKES):
        descriptor = os.open(datadir / f"intake-{number}.lock", os.O_RDWR | os.O_CREAT, 0o600)
        if lock(descriptor):
            return descriptor, number
        os.close(descriptor)
    raise IntakeError(f"{MAX_INTAKES} intakes run on {datadir} already: give this one a --datadir of its own")
