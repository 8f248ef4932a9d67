"""Starts stripe-stateful-mock (npm, MIT) on loopback: a Stripe that somebody else wrote."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from support.alone_in import alone_in
from support.announced_server import AnnouncedServer

from processes import ROOT

VERSION = "0.0.16"
CACHE = ROOT / ".servers" / f"stripe-stateful-mock-{VERSION}"
SCRIPT = """
const { createExpressApp } = require("stripe-stateful-mock");
const server = createExpressApp().listen(0, "127.0.0.1", () => console.log("port " + server.address().port));
"""
INSTALL_WITHIN_S = 180


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
    with alone_in(CACHE):
        if not done.exists():
            command = ["npm", "install", "--no-audit", "--no-fund", "--prefix", str(CACHE)]
            subprocess.run(
                [*command, f"stripe-stateful-mock@{VERSION}"], check=True, capture_output=True,
                timeout=INSTALL_WITHIN_S,
            )  # fmt: skip
            done.touch()
    return CACHE


class StripeServer(AnnouncedServer):
    """One server in memory; use it in a `with`."""

    name = "stripe-stateful-mock"

    def command(self) -> list[str]:
        """Node, where it is installed."""
        return ["node", "-e", SCRIPT]

    def folder(self) -> Path:
        """Where its packages are."""
        return install()
