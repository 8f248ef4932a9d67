"""A broker's disk that can be filled.

Where this process may mount (root), it is a file system of its own, so that Kafka meets ENOSPC as on a full
disk. Elsewhere the broker is forbidden to make files larger (RLIMIT_FSIZE): its writes fail with EFBIG, which
it takes the same way.
"""

from __future__ import annotations

import resource
import subprocess
from contextlib import suppress
from pathlib import Path

from broker.cluster import Node

SIZE_MB = 160
CHUNK = bytes(1024 * 1024)


class SmallDisk:
    """The disk of one broker, made before its first start in its data folder; close() after its last."""

    def __init__(self, data_dir: Path) -> None:
        self._folder = data_dir / "log"
        self._folder.mkdir(parents=True)
        command = ["mount", "-t", "tmpfs", "-o", f"size={SIZE_MB}m", "small-disk", str(self._folder)]
        self.mounted = subprocess.run(command, capture_output=True, check=False).returncode == 0

    @property
    def kind(self) -> str:
        """What its fullness is, for a report."""
        return f"tmpfs of {SIZE_MB} MB" if self.mounted else "RLIMIT_FSIZE"

    def fill(self, node: Node) -> None:
        """From now on no write of this broker succeeds."""
        if not self.mounted:
            _limit(node, 1)
            return
        with suppress(OSError), self._filler.open("wb", buffering=0) as file:
            while file.write(CHUNK):
                pass

    def free(self, node: Node) -> None:
        """There is room again."""
        if self.mounted:
            self._filler.unlink(missing_ok=True)
        elif node.running:
            _limit(node, resource.RLIM_INFINITY)

    def close(self) -> None:
        """Take it away; what it held is lost."""
        if self.mounted:
            subprocess.run(["umount", str(self._folder)], check=True)

    @property
    def _filler(self) -> Path:
        # no broker reads a file in this place: it looks for folders
        return self._folder / "filler"


def _limit(node: Node, size: int) -> None:
    _, hard = resource.prlimit(node.pid, resource.RLIMIT_FSIZE)
    soft = size if hard == resource.RLIM_INFINITY else min(size, hard)
    resource.prlimit(node.pid, resource.RLIMIT_FSIZE, (soft, hard))
