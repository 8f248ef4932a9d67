"""`python -m benchmarks`: what is missing is one line, wrong books are exit code 1."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from support.compared_runs import RIGHT, WRONG, run

from benchmarks.comparison import bring
from benchmarks.comparison.command import RAW, report
from benchmarks.comparison.records import Comparison, Run
from broker.jars import BrokerError

ROOT = Path(__file__).parents[3]


def stored(folder: Path, *runs: Run) -> Path:
    """The raw figures of a comparison."""
    (folder / RAW).write_bytes(msgspec.json.encode(Comparison({"measured": "now"}, list(runs))))
    return folder


def test_right_books_are_told_and_drawn_with_exit_code_0(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """From the raw figures alone."""
    name, peer = "ours, two workers, 0 ms", "Kafka Streams, two threads, 0 ms"
    runs = [run(name, 1, 50, books=RIGHT), run(peer, 1, 100)]
    assert 0 == report([str(stored(tmp_path, *runs))])
    assert "0.50" in capsys.readouterr().out.split("###")[1]
    assert {"speed.md", "speed.png", "speed.svg", RAW} == {file.name for file in tmp_path.iterdir()}


def test_wrong_books_lead_the_output_and_are_exit_code_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """However fast it was."""
    assert 1 == report([str(stored(tmp_path, run("ours, one worker, 0 ms", 1, 9e9, books=WRONG)))])
    assert capsys.readouterr().out.startswith("FAILED")


def test_missing_maven_is_said_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is measured; the broker's other way (KAFKA=) would not help."""
    monkeypatch.setattr(bring, "CACHE", tmp_path / "cache")
    monkeypatch.setattr("shutil.which", lambda name, path=None: None if name == "mvn" else f"/usr/bin/{name}")
    monkeypatch.setattr("broker.jars.java", lambda other_way: "java")
    with pytest.raises(BrokerError) as raised:
        bring.bring(["kafka-streams"], lambda line: None)
    assert str(raised.value) == f"Maven is missing: install it (the command is mvn), {bring.OTHER_WAY}"


def test_what_cannot_be_run_is_said_in_one_line_with_exit_code_2() -> None:
    """No traceback, nothing started."""
    command = [sys.executable, "-m", "benchmarks", "--only", "no such configuration"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (2, 1) == (done.returncode, len(done.stderr.splitlines()))
