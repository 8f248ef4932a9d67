"""Brings the peers into `.peers` of the checkout, once: jars by Maven, classes by javac, packages by pip.

Everything is kept under the hash of what it was made from, so a change of a peer makes it anew.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from broker.jars import BrokerError, java, java_tool, resolve_jars
from processes import ROOT

SOURCES: Final = ROOT / "benchmarks" / "peers"
CACHE: Final = ROOT / ".peers"
OTHER_WAY: Final = "or leave out the peers on Java with --only"
REQUIREMENTS: Final = SOURCES / "requirements.txt"


@dataclass(frozen=True, slots=True)
class JavaPeer:
    """A compiled peer: the program `java` runs its class `main` with this class path."""

    java: str
    class_path: str
    main: str


def java_peer(name: str) -> JavaPeer:
    """The peer in peers/`name`, its jars fetched, its source compiled; raises BrokerError with one line."""
    folder = SOURCES / name
    (source,) = folder.glob("*.java")
    jars = resolve_jars(folder / "pom.xml", CACHE / name, OTHER_WAY)
    classes = CACHE / name / f"classes-{_stamp(source, folder / 'pom.xml')}"
    if not classes.is_dir():
        _compile(source, jars, classes)
    return JavaPeer(java(OTHER_WAY), f"{classes}:{jars}/*", source.stem)


def python_of_peers() -> Path:
    """The Python that has the peers' packages, in an environment of its own; raises BrokerError."""
    folder = CACHE / f"python-{_stamp(REQUIREMENTS)}"
    python, whole = folder / "bin" / "python", folder / "installed"
    if not whole.exists():  # the stamp comes last: an interrupted set-up is repeated
        shutil.rmtree(folder, ignore_errors=True)
        _run([sys.executable, "-m", "venv", str(folder)], "cannot make an environment for the peers")
        pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        _run([*pip, "-r", str(REQUIREMENTS)], "pip cannot install the peers' packages")
        whole.touch()
    return python


def bring(names: Iterable[str], say: Callable[[str], None]) -> None:
    """Bring all of them before anything is measured; raises BrokerError with one line."""
    for name in sorted(names):
        say(f"bringing {name} ...")
        if (SOURCES / name / "pom.xml").exists():
            java_peer(name)
        elif (SOURCES / name / "app.py").exists():
            python_of_peers()


def _compile(source: Path, jars: Path, classes: Path) -> None:
    javac = java_tool("javac")
    if javac is None:
        raise BrokerError(f"javac is missing: install a JDK, not only a Java to run, {OTHER_WAY}")
    unfinished = classes.with_suffix(".part")
    shutil.rmtree(unfinished, ignore_errors=True)
    command = [javac, "-nowarn", "-cp", f"{jars}/*", "-d", str(unfinished), str(source)]
    _run(command, f"cannot compile {source}")
    unfinished.rename(classes)


def _run(command: list[str], otherwise: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - ours
    if done.returncode:
        said = [line for line in (done.stderr or done.stdout).splitlines() if line.strip()]
        raise BrokerError(f"{otherwise}: {said[-1].strip() if said else 'no reason given'}")


def _stamp(*made_from: Path) -> str:
    return hashlib.sha256(b"".join(path.read_bytes() for path in made_from)).hexdigest()[:12]
