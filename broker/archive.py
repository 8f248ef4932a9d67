"""The classes of the broker's jars as Java has read them, kept beside the jars: a broker starts sooner.

Measured: until its end a broker that does nothing takes 1.5 s of CPU with it, 2.4 s without. Java takes it
only for the paths and jars that it was made with, and does without it in silence where it does not fit.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from broker import LocalBroker
from broker.jars import BrokerError, class_archive, resolve_jars
from streamsocial_billing.locks import lock

MADE_WITHIN_S = 180.0


def ready_jars() -> Path:
    """The folder of the broker's jars; the first to ask waits, 4 s once, for the archive to be made."""
    jars = resolve_jars()
    if not class_archive(jars).exists():
        with (jars.parent / "lock").open("w") as held:
            if lock(held, 2 * MADE_WITHIN_S) and not class_archive(jars).exists():
                _make(jars)
    return jars


def _make(jars: Path) -> None:
    """Where Java cannot write it, it is empty: none tries again."""
    with tempfile.TemporaryDirectory(dir=jars.parent) as folder:
        made = Path(folder) / "classes.jsa"
        if not _Archiving(Path(folder) / "kafka", jars, made).run() or not made.exists():
            made.write_bytes(b"")
        made.rename(class_archive(jars))  # last: a file with this name is complete


class _Archiving(LocalBroker):
    """A broker that does nothing but have Java write the archive at its end."""

    def __init__(self, data_dir: Path, jars: Path, archive: Path) -> None:
        super().__init__(data_dir, port=0)
        self._jars = jars
        self._jvm_flags = (*self._jvm_flags, f"-XX:ArchiveClassesAtExit={archive}")

    def _ready_jars(self) -> Path:
        return self._jars

    def run(self) -> bool:
        """True if it started and ended by itself."""
        try:
            self.start(MADE_WITHIN_S)
            return self._running_process().terminate(MADE_WITHIN_S)
        except BrokerError:
            return False
        finally:
            self.kill()
