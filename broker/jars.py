"""Find Java with the pinned Kafka jars."""

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
    """Return the start of a Java command line: the program, `flags`, the class path."""
    return [java(), *flags, "-cp", f"{jars}/*"]


@cache
def java() -> str:
    """Return the path of Java 17 or newer ($JAVA_HOME first, then PATH); raises BrokerError."""
    home = os.environ.get("JAVA_HOME", "")
    path = shutil.which("java", path=f"{home}/bin" if home else None) or shutil.which("java")
    if path is None:
        raise BrokerError(f"Java is missing: install Java {JAVA_AT_LEAST} or newer, {OTHER_WAY}")
    said = subprocess.run([path, "-version"], capture_output=True, text=True, check=False)
    found = re.search(r'version "(\d+)', said.stderr)
    if said.returncode or found is None or int(found[1]) < JAVA_AT_LEAST:
        version = f"Java {found[1]}" if found else "not a working Java"
        raise BrokerError(f"{path} is {version}: install Java {JAVA_AT_LEAST} or newer, {OTHER_WAY}")
    return path


def resolve_jars() -> Path:
    """Return the folder with the jars of pom.xml, fetched by Maven once for each content of that file."""
    stamp = hashlib.sha256(POM.read_bytes()).hexdigest()[:12]
    jars = CACHE / f"jars-{stamp}"
    if jars.is_dir():
        return jars
    java()
    CACHE.mkdir(exist_ok=True)
    with (CACHE / "lock").open("w") as held:
        if not lock(held, FETCHED_WITHIN_S):
            raise BrokerError(f"somebody else fetches the jars into {CACHE} for too long: end it")
        if not jars.is_dir():
            _fetch(jars)
    return jars


def _fetch(jars: Path) -> None:
    maven = shutil.which("mvn")
    if maven is None:
        raise BrokerError(f"Maven is missing: install it (the command is mvn), {OTHER_WAY}")
    with tempfile.TemporaryDirectory(dir=CACHE) as folder:
        command = [maven, "-q", "-B", "-f", str(POM), "dependency:copy-dependencies"]
        command += ["-DincludeScope=runtime", f"-DoutputDirectory={folder}/jars"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            errors = [line for line in done.stdout.splitlines() if "ERROR" in line]
            reason = (errors or ["no reason given"])[0].removeprefix("[ERROR] ")
            raise BrokerError(f"Maven cannot fetch Kafka's jars ({OTHER_WAY}): {reason}")
        # the rename comes last: a folder with this name is complete
        (Path(folder) / "jars").rename(jars)
