"""What the tutorial says can be done, can be done: its programs run as they stand on the page."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest
from support.system import free_port

from processes import ROOT

PAGES = ("tutorial.md", "lab.md", "reading-a-torture-report.md", "why-plain-faust-is-not-enough.md")
TUTORIAL = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")
BIN = Path(sys.executable).parent
KNOWN_PROGRAMS = ("streamsocial-billing", "python")


def programs() -> dict[str, str]:
    """The Python blocks of the page, put together by the file that their title names."""
    found: defaultdict[str, list[str]] = defaultdict(list)
    blocks = r'^```python title="(\w+\.py)"\n(.*?)^```'
    for name, code in re.findall(blocks, TUTORIAL, re.MULTILINE | re.DOTALL):
        found[name].append(code)
    return {name: "\n\n".join(parts) for name, parts in found.items()}


@pytest.mark.timeout(600)
def test_each_gift_of_the_tutorial_is_earned_once_whatever_is_killed(
    broker: str, tmp_path: Path, unique_name: str
) -> None:
    """2 000 purchases, one of two workers killed with SIGKILL amid them: five gifts for each of 20 users."""
    for name, code in programs().items():
        (tmp_path / name).write_text(code, encoding="utf-8")
    environment = os.environ | {
        "POINTS_APP": unique_name, "POINTS_BROKER": broker, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1",
    }  # fmt: skip

    def start(worker: str) -> subprocess.Popen[bytes]:
        command = [
            sys.executable, "points.py", f"--datadir={worker}", "worker", f"--web-port={free_port()}",
            "--loglevel=info",
        ]  # fmt: skip
        with (tmp_path / f"{worker}.log").open("ab") as log:
            return subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=log, stderr=log)

    def run(program: str) -> str:
        done = subprocess.run(
            [sys.executable, program], cwd=tmp_path, env=environment, capture_output=True, text=True,
            check=False, timeout=120,
        )  # fmt: skip
        assert 0 == done.returncode, done.stderr
        return done.stdout

    workers = [start("p1"), start("p2")]
    try:
        wait_for(tmp_path / "p1.log", r"task \d+ runs")
        run("send.py")
        workers[0].kill()
        workers[0].wait()
        workers[0] = start("p1")
        assert "[5] gifts per user, 20 users" in run("read.py")
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()


def wait_for(log: Path, pattern: str) -> None:
    """Return when a line of a growing file matches; the test's own time-out bounds that."""
    with subprocess.Popen(
        ["tail", "-n", "+1", "-F", str(log)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as tail:
        assert tail.stdout is not None
        try:
            assert any(re.search(pattern, line) for line in tail.stdout)
        finally:
            tail.kill()


@pytest.mark.parametrize("page", PAGES)
def test_each_command_on_the_page_exists_with_its_options(page: str) -> None:
    """Make targets are targets; our programs know each option; nothing else is typed there."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    lines = [
        line for block in re.findall(r"^```console\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
        for line in block.splitlines()
    ]  # fmt: skip
    lines += re.findall(r"`((?:make|python -m) [^`]+)`", text)
    for line in lines:
        words = line.split()
        if words[0] == "make":
            assert words[1] in targets, line
            continue
        program, *arguments = words
        assert program.removeprefix(".venv/bin/") in KNOWN_PROGRAMS, line
        if arguments[0].endswith(".py"):
            assert arguments[0] in programs(), line
            continue
        known = arguments[: 2 if arguments[0] == "-m" else 1]
        ours = str(BIN / "streamsocial-billing")
        command = [sys.executable if known[0] == "-m" else ours, *known]
        told = subprocess.run(
            [*command, "--help"], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
        ).stdout
        assert [] == [option for option in re.findall(r"--[a-z-]+", line) if option not in told], line
