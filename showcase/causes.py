"""How a process ended, in the words of its own log."""

from __future__ import annotations

import re
import signal
from pathlib import Path
from typing import Final

TAIL_BYTES: Final = 65_536
SAID_NOTHING: Final = "it said nothing"
CODES: Final = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b[@-Z\\-_]|[\x00-\x08\x0b-\x1f\x7f]"
)
"""Colours, cursor movements and titles of a terminal."""
FRAME: Final = re.compile(r"[\u2500-\u259f]|^[+|][-+|=]{3}")
"""Lines of a banner or a table: whoever draws frames does not explain an end."""
ERROR: Final = re.compile(
    r"\b(?:ERROR|CRITICAL|FATAL|[A-Z]\w*(?:Error|Exception))\b|^[\w.-]+: \S"
    r'|"level": ?"(?:error|critical)"'
)
TOLD_NOTHING: Final = frozenset({signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP})
"""Who is ended so from outside did not end by an error of its own, whatever stands in its log."""


def how_it_ended(name: str, code: int | None, log: Path, begins: int) -> str:
    """One line: which process, its signal or exit code, its own last error, where its log is.

    `begins` is where its log begins within the file, in bytes.
    """
    if code is not None and code < 0:
        number = -code
        known = number in {one.value for one in signal.Signals}
        text = f"{name} was killed by {signal.Signals(number).name if known else f'signal {number}'}"
        if number in TOLD_NOTHING:
            return f"{text} (log: {shown(log)})"
    else:
        text = f"{name} ended with exit code {code}"
    return f"{text}: {last_error(log, begins)} (log: {shown(log)})"


def last_error(log: Path, begins: int = 0) -> str:
    """The last line of a log that tells of an error, else its last one that says anything."""
    try:
        with log.open("rb") as file:
            file.seek(0, 2)
            file.seek(max(begins, file.tell() - TAIL_BYTES))
            text = file.read().decode(errors="replace")
    except OSError:
        return SAID_NOTHING
    lines = [CODES.sub("", line).strip() for line in re.split(r"[\r\n]+", text)]
    said = [line for line in lines if line and not FRAME.search(line)]
    errors = [line for line in said if ERROR.search(line)]
    return (errors or said or [SAID_NOTHING])[-1]


def shown(path: Path) -> str:
    """A path as short as it can be."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
