"""A broker's disk under test refuses writes while it is full, and takes them again afterwards."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.small_disk import SmallDisk

# whole pages: what is left of one that is begun can still be written on a full tmpfs
WRITER = """
import sys
for line in sys.stdin:
    try:
        with open(sys.argv[1], "ab", buffering=0) as file:
            file.write(bytes(98_304))
        print("written", flush=True)
    except OSError as error:
        print(error.strerror, flush=True)
"""


class Writer:
    """A process that appends to a file of the disk on request, as a broker does; stands in for one."""

    running = True

    def __init__(self, file: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(file)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.pid = self._process.pid

    def append(self) -> str:
        """What came of it."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return self._process.stdout.readline().strip()

    def close(self) -> None:
        """End the process."""
        self._process.communicate()


@pytest.fixture(params=["as-here", "no-mount"])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SmallDisk]:
    """A disk as it can be had here, and one that could not be mounted."""
    one = SmallDisk(tmp_path)
    if request.param == "no-mount":
        one.close()
        one.mounted = False
    yield one
    one.close()


def test_a_full_disk_takes_nothing_until_there_is_room(disk: SmallDisk, tmp_path: Path) -> None:
    """The write fails with an error, the process lives; with room again the next one succeeds."""
    writer: Any = Writer(tmp_path / "log" / "segment")
    try:
        assert "written" == writer.append()
        disk.fill(writer)
        assert writer.append() in ("No space left on device", "File too large")
        disk.free(writer)
        assert "written" == writer.append()
    finally:
        writer.close()
