"""The data folder of a showcase: held by one at a time."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from types import TracebackType
from typing import Final

from showcase.errors import ShowcaseFailed
from streamsocial_billing.locks import lock

LOCK_NAME: Final = "showcase.lock"
LOCK_WAIT_S: Final = 8.0
"""Longer than processes/guard.py needs to end the processes of a showcase that was killed."""


class Folder:
    """A locked folder; the processes that it is for inherit the lock, so it outlasts a killed showcase."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lock_fd = -1

    @property
    def logs(self) -> Path:
        """Where every process writes its log."""
        return self.path / "logs"

    def __enter__(self) -> Folder:
        try:
            self._refuse_a_foreign_one()
            self.logs.mkdir(parents=True, exist_ok=True)
            self.lock_fd = os.open(self.path / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise ShowcaseFailed(f"cannot write the data folder {self.path}: {error.strerror}") from None
        self._lock()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self.lock_fd)

    def empty(self) -> None:
        """Remove what an earlier showcase left, but the lock."""
        for entry in self.path.iterdir():
            if entry.name != LOCK_NAME:
                shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
        self.logs.mkdir()

    def _refuse_a_foreign_one(self) -> None:
        """What this folder holds may be removed: it must be one of ours."""
        if self.path.exists() and any(self.path.iterdir()) and not (self.path / LOCK_NAME).exists():
            raise ShowcaseFailed(f"{self.path} holds something else: choose an empty folder with --data")

    def _lock(self) -> None:
        if not lock(self.lock_fd, LOCK_WAIT_S):
            os.close(self.lock_fd)
            text = f"another showcase uses {self.path}: stop it, or choose another folder with --data"
            raise ShowcaseFailed(text)
