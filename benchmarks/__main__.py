"""What `python -m benchmarks` measures: ours beside its peers, or (`own`) our worker alone."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from benchmarks import own
from benchmarks.comparison import command

COMMANDS: Final[Mapping[str, Callable[[Sequence[str]], int | None]]] = {
    "compare": command.compare,
    "report": command.report,
    "own": own.main,
}


def main(words: Sequence[str]) -> int | None:
    """Run the named command, `compare` where none is named; its exit code."""
    if words and words[0] in COMMANDS:
        return COMMANDS[words[0]](words[1:])
    return command.compare(words)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
