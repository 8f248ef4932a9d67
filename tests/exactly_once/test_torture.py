"""The torture in the size of a CI run, and that it can fail."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import orjson
import pytest

from torture.mutants import MUTANTS
from torture.schedule import CLUSTER_KINDS

ROOT = Path(__file__).parents[2]
SEED = 1


def torture(out: Path, *arguments: str) -> tuple[int, str]:
    """Run it; exit code, last words."""
    command = [sys.executable, "-m", "torture", "--size=ci", f"--seed={SEED}", f"--out={out}", *arguments]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    return done.returncode, done.stdout.decode()[-6000:]


@pytest.mark.timeout(900)
def test_nothing_is_lost_and_nothing_doubled_under_torture(tmp_path: Path) -> None:
    """2 000 payments, 40 faults that overlap, a quiet end: no violation, no fault that the product failed.

    What the run left can be judged once more, with the same verdict.
    """
    code, said = torture(tmp_path / "run")
    print(said)
    assert 0 == code, said
    told = orjson.loads((tmp_path / "run" / "report.json").read_bytes())
    assert (True, 0, 0) == (told["clean"], told["lost"], told["double"])
    assert told["payments"] >= 2000
    assert sum(told["faults"].values()) == 40
    assert (tmp_path / "run" / "report.html").stat().st_size > 10_000
    again, words = torture(tmp_path / "run", "--judge")
    assert 0 == again, words
    assert told == orjson.loads((tmp_path / "run" / "report.json").read_bytes())


@pytest.mark.slow
@pytest.mark.timeout(2400)
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_nothing_is_lost_and_nothing_doubled_on_three_brokers(seed: int, tmp_path: Path) -> None:
    """Brokers killed, frozen, cut off, too few: no violation. Judged again, the same verdict."""
    code, said = torture(tmp_path / "run", "--brokers=3", f"--seed={seed}")
    assert 0 == code, said
    told = orjson.loads((tmp_path / "run" / "report.json").read_bytes())
    assert (True, 0, 0, 3) == (told["clean"], told["lost"], told["double"], told["brokers"])
    assert set(CLUSTER_KINDS) <= set(told["faults"])
    assert {"broker 1", "broker 2", "broker 3", "controller"} == set(told["away_s"])
    again, words = torture(tmp_path / "run", "--judge")
    assert 0 == again, words
    assert told == orjson.loads((tmp_path / "run" / "report.json").read_bytes())


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_defect_that_is_put_back_turns_the_torture_red(mutant: str, tmp_path: Path) -> None:
    """Each defect of plain Faust, alone, is found by the checker."""
    code, said = torture(tmp_path / "run", f"--mutant={mutant}")
    assert 1 == code, said
    report = tmp_path / "run" / "report.json"
    assert report.exists(), said
    assert orjson.loads(report.read_bytes())["violations"], said
