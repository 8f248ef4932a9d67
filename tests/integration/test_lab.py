"""The lab as a newcomer starts it: on a real Kafka, with real kills."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from processes import ROOT


def run_lab(out: Path, *arguments: str, within_s: float = 300) -> tuple[int, str]:
    """Exit code and output of `python -m lab`."""
    command = [sys.executable, "-m", "lab", "--out", str(out), *arguments]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=within_s, check=False,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


def verdict(output: str, title: str, seed: int = 1) -> str:
    """What the lab says in the end about one guarantee."""
    found = re.search(rf"^{re.escape(title)} \(seed {seed}\): (.*)$", output, re.MULTILINE)
    assert found is not None, output
    return found[1]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_at_most_once_loses_and_the_product_does_no_harm(tmp_path: Path) -> None:
    """The same payments, the same faults: what is lost under one guarantee is charged once under ours."""
    code, output = run_lab(tmp_path / "lab", "--only", "at-most-once", "ours", "--payments", "300")
    assert 0 == code, output
    assert re.search(r"[1-9]\d* payments? lost", verdict(output, "At most once"))
    assert verdict(output, "Exactly once, this project").startswith("no harm:")
    page = (tmp_path / "lab" / "lab.html").read_text(encoding="utf-8")
    # it needs nothing from elsewhere
    assert "http" not in re.sub(r"https?://127\.0\.0\.1\S*", "", page), page
    assert verdict(output, "Exactly once, this project") in page


@pytest.mark.timeout(600)
def test_an_opened_transaction_shows_what_a_crash_leaves_and_its_repair(tmp_path: Path) -> None:
    """Killed before the commit: open records, charges at the gateway; then aborted, made again."""
    code, output = run_lab(tmp_path / "lab", "--crash-at", "before_commit", within_s=330)
    assert 0 == code, output
    killed, again = output.split("started again")
    assert "open" in killed and "aborted" not in killed and "succeeded │ EUR 23.00" in killed
    assert "aborted" in again and "committed" in again
    assert 2 == again.count("succeeded │ EUR 23.00")


@pytest.mark.slow
@pytest.mark.timeout(1_200)
def test_three_seeds_show_each_guarantee_for_what_it_is(tmp_path: Path) -> None:
    """Losses for at most once, doubles for at least once, what plain Faust did, no harm for ours."""
    code, output = run_lab(tmp_path / "lab", "--seed", "1", "2", "3", within_s=1_100)
    assert 0 == code, output
    for seed in (1, 2, 3):
        assert re.search(r"[1-9]\d* payments? lost", verdict(output, "At most once", seed))
        again = verdict(output, "At least once, no deduplication", seed)
        assert re.search(r"[1-9]\d* payments? charged again by the consumer", again)
        sums = verdict(output, "At least once, idempotent handler", seed)
        assert re.search(r"[1-9]\d* payments? reported more than once", sums)
        assert "charged again" not in sums
        assert not verdict(output, "Plain Faust, exactly_once", seed).startswith("no harm")
        assert verdict(output, "Exactly once, this project", seed).startswith("no harm:")
