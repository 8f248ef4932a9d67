"""Takes the lock of an open file: the one way in which processes keep a folder or a file for themselves."""

from __future__ import annotations

import fcntl
import time
from typing import IO, Any, Final

LOOK_EVERY_S: Final = 0.05


def lock(file: int | IO[Any], within_s: float = 0.0) -> bool:
    """True once this process holds the file's lock, False if another held it for all of `within_s` seconds.

    The operating system frees it with the last descriptor, however the process ends. A process that inherits
    the descriptor holds it too.
    """
    limit = time.monotonic() + within_s
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= limit:
                return False
            time.sleep(LOOK_EVERY_S)
        else:
            return True
