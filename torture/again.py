"""Judges a finished run once more, from the folder that it left: broker and gateway come back, nobody works.

    python -m torture --judge --out FOLDER
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from torture.figures import lines
from torture.system import LOCK_NAME, Journal, System


def brokers_of(folder: Path) -> int:
    """With how many brokers the run of this folder was made."""
    path = folder / "run.json"
    return int(json.loads(path.read_text()).get("brokers", 1)) if path.exists() else 1


class LeftBehind(System):
    """The system of an earlier run as it stood at its end; nothing in the folder is emptied or added."""

    def __enter__(self) -> LeftBehind:
        if not (self.folder / "run.json").exists():
            raise FileNotFoundError(f"{self.folder} holds no run that came to its end: choose another --out")
        self._lock_fd = os.open(self.folder / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self.events = Journal(self.folder / "events.jsonl")
        self.fault_log = Journal(self.folder / "faults.jsonl")
        self.added = any(fault["kind"] == "deploy" for fault in lines(self.folder / "faults.jsonl"))
        self.kafka.__enter__()
        try:
            self._start()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self
