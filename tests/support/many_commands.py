"""Runs many command lines of ours in forks of one process that has loaded the app's modules once.

As a program: reads a JSON list of command lines on stdin, writes a JSON list of [exit code, stdout, stderr].
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

NAME = "streamsocial-billing"


def run_many(
    commands: Sequence[Sequence[str]], folder: Path, environment: Mapping[str, str]
) -> list[tuple[int, str, str]]:
    """Exit code, stdout, stderr of each, in `folder`; nobody is there to answer a question."""
    done = subprocess.run(
        [sys.executable, __file__], input=json.dumps([list(one) for one in commands]), cwd=folder, text=True,
        env=dict(environment), stdout=subprocess.PIPE, check=True, timeout=220,
    )  # fmt: skip
    return [(code, out, err) for code, out, err in json.loads(done.stdout)]


def _run(command: list[str], files: tuple[Path, Path]) -> int:
    """In a fork, as the console script does it."""
    child = os.fork()
    if child == 0:
        for descriptor, path in ((1, files[0]), (2, files[1])):
            os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), descriptor)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        sys.argv[:] = [NAME, *command]  # in place: Faust has kept this list
        from streamsocial_billing.cli.main import main

        try:
            main()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _main() -> None:
    commands = json.load(sys.stdin)
    import streamsocial_billing.app
    import streamsocial_billing.cli.main  # noqa: F401 - loaded once, for every fork

    files = Path(f"out-{os.getpid()}"), Path(f"err-{os.getpid()}")
    said = [(_run(one, files), files[0].read_text(), files[1].read_text()) for one in commands]
    for path in files:
        path.unlink()
    json.dump(said, sys.stdout)


if __name__ == "__main__":
    _main()
