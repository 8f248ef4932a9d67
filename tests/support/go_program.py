"""Builds a program of a Go module for the tests, once."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from support.alone_in import alone_in
from support.stripe_server import skip_or_fail

BUILD_WITHIN_S = 300


def go_program(program: Path, module: str, without_go: str) -> Path:
    """The program, built from `module` (path@version) if it is not there yet.

    Where go is missing the test is skipped (in CI: fails) with `without_go`.
    """
    with alone_in(program.parent):
        if not program.exists():
            if shutil.which("go") is None:
                skip_or_fail(without_go)
            environ = os.environ | {"GOBIN": str(program.parent), "GOFLAGS": "-mod=mod"}
            subprocess.run(
                ["go", "install", module], check=True, capture_output=True, env=environ,
                timeout=BUILD_WITHIN_S,
            )  # fmt: skip
    return program
