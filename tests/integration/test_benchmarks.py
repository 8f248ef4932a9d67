"""`make bench` in the smallest size: a peer is brought, measured, compared, drawn."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from benchmarks.comparison.command import RAW
from benchmarks.comparison.records import Comparison

ROOT = Path(__file__).parents[2]
TWO = ("ours, one worker, 0 ms", "Kafka Streams, two threads, 0 ms")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_ours_is_compared_with_kafka_streams_on_a_real_kafka(tmp_path: Path) -> None:
    """Both have right books and rates; a ratio leads, the picture is there, no data of the broker stays."""
    command = [sys.executable, "-m", "benchmarks", "-n", "4000", "--rounds", "1", "--to", str(tmp_path)]
    done = subprocess.run([*command, "--only", *TWO], cwd=ROOT, capture_output=True, text=True, check=False)
    assert 0 == done.returncode, done.stdout + done.stderr
    (folder,) = tmp_path.iterdir()
    names = {"speed.json", "speed.md", "speed.svg", "speed.png", "logs"}
    assert names == {path.name for path in folder.iterdir()}
    found = msgspec.json.decode((folder / RAW).read_bytes(), type=Comparison)
    assert ["warm-up of the broker", *TWO] == [run.configuration for run in found.runs]
    assert [] == [fault for run in found.runs for fault in run.faults()]
    assert [] == [run for run in found.runs[1:] if run.figures["running_cpu_us"] <= 0]
    assert (folder / "speed.md").read_text().startswith("### Ours divided by the peer's, worst first")
