"""What the faults do to files, what a worker does at its orders."""

from __future__ import annotations

import random
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from faust_exactly_once.database import Identity, PartitionStore
from torture.disk_faults import spoil
from torture.faults import ACTIONS, CLUSTER_ACTIONS
from torture.orders import Orders
from torture.outer_faults import GATEWAY
from torture.schedule import CLUSTER_KINDS, KINDS, kinds_of
from torture.system import LOCK_NAME, Journal, fresh
from torture.worker import Spec, Stumble, stumbling
from torture.workers import Worker

SENT = signal.SIGUSR1


@pytest.fixture
def caught() -> Iterator[list[int]]:
    """The signals that this process sent itself."""
    found: list[int] = []
    before = signal.signal(SENT, lambda number, _: found.append(number))
    yield found
    signal.signal(SENT, before)


@pytest.fixture
def orders(tmp_path: Path) -> tuple[Worker, Orders]:
    """Who gives orders, who obeys."""
    worker = Worker("w1", tmp_path, {}, {}, -1)
    return worker, Orders(worker.orders)


def test_every_kind_has_an_action() -> None:
    """None is planned that cannot happen, none can happen that is never planned."""
    assert set(KINDS) == set(ACTIONS)
    assert set(CLUSTER_KINDS) == set(CLUSTER_ACTIONS)
    assert set(kinds_of(3)) <= set(ACTIONS) | set(CLUSTER_ACTIONS)
    assert {kind for kind in KINDS if kind.startswith("gateway_")} == set(GATEWAY)


def test_an_order_is_obeyed_at_its_point_at_its_passing(
    orders: tuple[Worker, Orders], caught: list[int]
) -> None:
    """Not at another point, not before the N-th time, once."""
    worker, obeys = orders
    worker.order(SENT, "before_commit", 2)
    obeys.probe("before_send")
    obeys.probe("before_commit")
    assert [] == caught
    obeys.probe("before_commit")
    assert [SENT] == caught
    assert not worker.orders.exists()
    obeys.probe("before_commit")
    obeys.probe("before_commit")
    assert [SENT] == caught


def test_an_order_that_is_withdrawn_is_not_obeyed(orders: tuple[Worker, Orders], caught: list[int]) -> None:
    """Nor is a torn one."""
    worker, obeys = orders
    worker.order(SENT, "before_commit", 1)
    worker.withdraw()
    obeys.probe("before_commit")
    worker.orders.write_text("SIGUSR1 before_")
    obeys.probe("before_commit")
    assert [] == caught


def test_a_handler_stumbles_as_often_as_it_shall() -> None:
    """Before it has answered; else it answers as it always does."""
    answered: list[int] = []
    write, raised = stumbling(answered.append, 0.25, random.Random(1)), 0
    for number in range(2000):
        try:
            write(number)
        except Stumble:
            raised += 1
    assert 2000 == raised + len(answered)
    assert pytest.approx(500, rel=0.15) == raised


def test_a_start_is_told_what_is_special_about_it() -> None:
    """The spec reaches the worker's process in its environment, whole."""
    spec = Spec("orders", {"request_timeout_s": 4.0}, added_topic=True, clock_ahead_s=2.0, mutant="x")
    [(name, text)] = spec.environment().items()
    assert name == "TORTURE_WORKER"
    assert all(f'"{field}"' in text for field in ("orders", "options", "added_topic", "mutant"))


@pytest.mark.parametrize("how", ["cut", "flip", "remove"])
@pytest.mark.parametrize("seed", range(4))
def test_a_spoilt_file_is_another_one(how: str, seed: int, tmp_path: Path) -> None:
    """Shorter, the same length with one bit changed, or gone."""
    path, whole = tmp_path / "file", bytes(range(200))
    path.write_bytes(whole)
    spoil(path, how, random.Random(seed))
    if how == "remove":
        assert not path.exists()
        return
    left = path.read_bytes()
    bits = sum((a ^ b).bit_count() for a, b in zip(whole, left, strict=False))
    assert (len(left) < 200, 0) == (True, bits) if how == "cut" else (200, 1) == (len(left), bits)


@pytest.mark.parametrize("how", ["cut", "flip", "remove"])
def test_a_store_with_a_spoilt_manifest_starts_from_empty(how: str, tmp_path: Path) -> None:
    """The damage is one that the product has to find out."""
    store = PartitionStore(tmp_path / "x.db")
    store.open()
    store.adopt(Identity("cluster", "topic", 0))
    store.apply({b"key": b"value"}, 1)
    store.close()
    spoil(next(store.path.glob("MANIFEST-*")), how, random.Random(1))
    reason = store.open()
    store.close()
    assert reason is not None and reason.startswith("damaged files")


def test_a_run_folder_is_emptied_a_foreign_one_is_refused(tmp_path: Path) -> None:
    """What an earlier run left goes; what is not a run's stays."""
    folder = tmp_path / "run"
    fresh(folder)
    (folder / LOCK_NAME).touch()
    (folder / "faults.jsonl").write_text("{}")
    fresh(folder)
    assert [] == list(folder.iterdir())
    (folder / "precious").touch()
    with pytest.raises(FileExistsError, match="holds something else"):
        fresh(folder)
    assert (folder / "precious").exists()


def test_a_journal_is_readable_while_it_is_written(tmp_path: Path) -> None:
    """Each line is there when `write` returns; what is no JSON is written as text."""
    journal = Journal(tmp_path / "events.jsonl")
    journal.write(at=1.5, what="x", path=Path("a"))
    assert '{"at": 1.5, "what": "x", "path": "a"}\n' == (tmp_path / "events.jsonl").read_text()
    journal.close()
