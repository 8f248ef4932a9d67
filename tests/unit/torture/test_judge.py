"""Which unreadable databases are the fault's doing, not the product's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from streamsocial_billing.audit.checks import Problem
from torture.judge import excused

DAMAGED: list[dict[str, Any]] = [
    {"kind": "kill", "target": "w1", "detail": {}},
    {"kind": "damage", "target": "w1", "detail": {"file": "charges-3.db/MANIFEST-000005", "how": "cut"}},
    {"kind": "damage", "target": "w2", "detail": {"file": None}},
    {"kind": "offsets_expired", "target": "all", "failed": "x"},
    {"kind": "disk_full", "target": "w3", "detail": {"ended_itself": True}},
]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run folder with whole databases of three workers."""
    for worker in ("w1", "w2", "w3"):
        for name in ("charges-3.db", "payments-0.db"):
            folder = tmp_path / worker / "v1" / "tables" / name
            folder.mkdir(parents=True)
            (folder / "CURRENT").write_text("MANIFEST-000005\n")
    return tmp_path


def unreadable(run: Path, worker: str, database: str) -> Problem:
    """What the check of the disks says of such a database."""
    return Problem("damaged database", str(run / worker / "v1" / "tables" / database), "Corruption")


def test_a_database_that_a_fault_damaged_is_excused(run: Path) -> None:
    """That one, of that worker; on a full disk any of the worker's."""
    assert excused(unreadable(run, "w1", "charges-3.db"), DAMAGED)
    assert excused(unreadable(run, "w3", "payments-0.db"), DAMAGED)


def test_any_other_unreadable_database_is_not(run: Path) -> None:
    """Another one of the same worker, the same one of another worker, any without faults."""
    assert not excused(unreadable(run, "w1", "payments-0.db"), DAMAGED)
    assert not excused(unreadable(run, "w2", "charges-3.db"), DAMAGED)
    assert not excused(unreadable(run, "w1", "charges-3.db"), [])


def test_a_database_whose_making_was_cut_short_is_excused(run: Path) -> None:
    """It has no CURRENT yet, so it never held anything."""
    (run / "w2" / "v1" / "tables" / "charges-3.db" / "CURRENT").unlink()
    assert excused(unreadable(run, "w2", "charges-3.db"), [])


def test_wrong_content_is_never_excused(run: Path) -> None:
    """A readable database that is no prefix of its changelog was not found out: the worst of all."""
    problem = unreadable(run, "w1", "charges-3.db")._replace(kind="disk differs from its changelog")
    assert not excused(problem, DAMAGED)
