"""Starts stripe-stateful-mock (npm, MIT) on loopback: a Stripe that somebody else wrote."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from types import TracebackType

import pytest

from processes import ROOT
from processes.heard import HeardProcess

VERSION = "0.0.16"
CACHE = ROOT / ".servers" / f"stripe-stateful-mock-{VERSION}"
SCRIPT = """
const { createExpressApp } = require("stripe-stateful-mock");
const server = createExpressApp().listen(0, "127.0.0.1", () => console.log("port " + server.address().port));
"""
INSTALL_WITHIN_S = 180
STARTS_WITHIN_S = 60


def skip_or_fail(why: str) -> None:
    """In CI nothing is skipped."""
    if os.environ.get("CI"):
        pytest.fail(why)
    pytest.skip(why)


def install() -> Path:
    """The folder with its node_modules, filled once; skips (in CI: fails) where node or npm is missing."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        skip_or_fail(f"stripe-stateful-mock {VERSION} needs node and npm: the Stripe adapter is not tested")
    done = CACHE / "installed"
    if not done.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        command = ["npm", "install", "--no-audit", "--no-fund", "--prefix", str(CACHE)]
        subprocess.run(
            [*command, f"stripe-stateful-mock@{VERSION}"], check=True, capture_output=True,
            timeout=INSTALL_WITHIN_S,
        )  # fmt: skip
        done.touch()
    return CACHE


class StripeServer:
    """One server in memory; use it in a `with`."""

    def __enter__(self) -> StripeServer:
        command = ["node", "-e", SCRIPT]
        self._process = HeardProcess("stripe-stateful-mock", command, Path(os.devnull), cwd=install())
        self._process.launch()
        line = self._process.wait_line("^port ", STARTS_WITHIN_S)
        assert line is not None, self._process.tail()
        self.url = f"http://127.0.0.1:{int(line.split()[1])}"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
