"""An environment in which the layer's wheel is installed, and the product is not."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

from processes import ROOT

PACKAGE = ROOT / "packages/faust-exactly-once"
OURS = re.compile(r"streamsocial|tables|faust_exactly_once|__editable__|.*\.(pth|egg-link)$")
"""What of this environment must not be found in the other one: the product, the layer, ways to checkouts."""


def built(folder: Path) -> Path:
    """The layer's wheel, made without an index from a copy of its sources: nothing is written beside them."""
    source = folder / "source"
    shutil.copytree(
        PACKAGE, source, ignore=shutil.ignore_patterns("build", "*.egg-info", "__pycache__", "examples")
    )
    _pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder / "wheels"), str(source))
    (wheel,) = (folder / "wheels").glob("*.whl")
    return wheel


def installed(wheel: Path, folder: Path) -> Path:
    """The Python of a fresh environment with the wheel; what that needs is taken from this one."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    python = folder / "bin/python"
    _pip("install", "--no-deps", "--no-index", str(wheel), of=python)
    (site,) = (folder / "lib").glob("python*/site-packages")
    needed = folder / "needed"
    needed.mkdir()
    (here,) = {Path(path) for path in sys.path if path.endswith("site-packages")}
    for one in here.iterdir():
        if not OURS.match(one.name):
            (needed / one.name).symlink_to(one)
    (site / "needed.pth").write_text(f"{needed}\n")
    return python


def _pip(*words: str, of: Path | None = None) -> None:
    target = [] if of is None else ["--python", str(of)]
    done = subprocess.run(
        [sys.executable, "-m", "pip", *target, "--disable-pip-version-check", "--quiet", *words],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert 0 == done.returncode, done.stdout + done.stderr
