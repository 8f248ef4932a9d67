"""Find Java; fetch pinned jars by Maven, the broker's unless another pom.xml is named."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

from streamsocial_billing.locks import lock

POM = Path(__file__).resolve().parent / "pom.xml"
CACHE = POM.parent.parent / ".kafka"
JAVA_AT_LEAST = 17
FETCHED_WITHIN_S = 900.0
OTHER_WAY = "or use a broker of yours with KAFKA=host:port"


class BrokerError(Exception):
    """Raised when the local broker cannot run; the text is one line that says what to do."""


def java_command(jars: Path, *flags: str) -> list[str]:
    """Return the start of a Java command line: the program, `flags`, the class path, classes read already."""
    archive = class_archive(jars)
    read = [f"-XX:SharedArchiveFile={archive}"] if archive.is_file() and archive.stat().st_size else []
    return [java(), *read, *flags, "-cp", f"{jars}/*"]


def class_archive(jars: Path) -> Path:
    """The file beside `jars` that holds their classes as this Java has read them, once a broker made it.

    Empty where it could not be made. Java takes it only for the very paths and jars that it was made with,
    and does without it in silence where it does not fit: another place is another file.
    """
    made_by = hashlib.sha256(f"{java()} {jars.absolute()}".encode()).hexdigest()[:12]
    return jars.with_name(f"{jars.name}-{made_by}.jsa")


@cache
def java(other_way: str = OTHER_WAY) -> str:
    """Return the path of Java 17 or newer ($JAVA_HOME first, then PATH); raises BrokerError."""
    path = java_tool("java")
    if path is None:
        raise BrokerError(f"Java is missing: install Java {JAVA_AT_LEAST} or newer, {other_way}")
    said = subprocess.run([path, "-version"], capture_output=True, text=True, check=False)
    found = re.search(r'version "(\d+)', said.stderr)
    if said.returncode or found is None or int(found[1]) < JAVA_AT_LEAST:
        version = f"Java {found[1]}" if found else "not a working Java"
        raise BrokerError(f"{path} is {version}: install Java {JAVA_AT_LEAST} or newer, {other_way}")
    return path


def java_tool(name: str) -> str | None:
    """The path of a program of Java: in $JAVA_HOME first, then by PATH; None where there is none."""
    home = os.environ.get("JAVA_HOME", "")
    return shutil.which(name, path=f"{home}/bin" if home else None) or shutil.which(name)


def resolve_jars(pom: Path = POM, cache: Path = CACHE, other_way: str = OTHER_WAY) -> Path:
    """Return the folder with the jars of a pom.xml, fetched by Maven once for each content of that file.

    `other_way` is what a caller can do instead, for the one-line text of a BrokerError.
    """
    stamp = hashlib.sha256(pom.read_bytes()).hexdigest()[:12]
    jars = cache / f"jars-{stamp}"
    if jars.is_dir():
        return jars
    java(other_way)
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "lock").open("w") as held:
        if not lock(held, FETCHED_WITHIN_S):
            raise BrokerError(f"somebody else fetches the jars into {cache} for too long: end it")
        if not jars.is_dir():
            _fetch(pom, jars, other_way)
    return jars


def _fetch(pom: Path, jars: Path, other_way: str) -> None:
    maven = shutil.which("mvn")
    if maven is None:
        raise BrokerError(f"Maven is missing: install it (the command is mvn), {other_way}")
    with tempfile.TemporaryDirectory(dir=jars.parent) as folder:
        command = [maven, "-q", "-B", "-f", str(pom), "dependency:copy-dependencies"]
        command += ["-DincludeScope=runtime", f"-DoutputDirectory={folder}/jars"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            errors = [line for line in done.stdout.splitlines() if "ERROR" in line]
            reason = (errors or ["no reason given"])[0].removeprefix("[ERROR] ")
            raise BrokerError(f"Maven cannot fetch the jars of {pom} ({other_way}): {reason}")
        # the rename comes last: a folder with this name is complete
        (Path(folder) / "jars").rename(jars)
