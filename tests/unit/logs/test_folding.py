"""Floods of libraries become a line with a count; lines about payments never do."""

from __future__ import annotations

import logging

import pytest

from streamsocial_billing.logs.folding import MOST, PATIENCE_S, WINDOW_S, Fold


class Bench:
    """A fold with the test's clock."""

    def __init__(self, patience_s: float = 0.0) -> None:
        self.now_s = 1000.0
        self.fold = Fold(lambda: self.now_s)
        self.fold.patience_s = patience_s

    def log(
        self, message: str, *args: object, name: str = "asyncio", level: int = logging.ERROR, **fields: object
    ) -> int | None:
        """None if it is held back, else how many it says were."""
        record = logging.LogRecord(name, level, "", 0, message, args, None)
        record.__dict__.update(fields)
        return getattr(record, "not_shown", 0) if self.fold.filter(record) else None


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_a_library_that_repeats_itself_is_shown_once_a_minute_with_the_count(bench: Bench) -> None:
    """Numbers in the message make no other kind."""
    shown = []
    for second in range(180):
        bench.now_s = 1000.0 + second
        for node in (1, 2, 3):
            shown.append(bench.log(f"cannot connect to node {node}: %s", second))
    assert [0, 179, 179] == [one for one in shown if one is not None]
    assert 3 * 180 - 3 == bench.fold.held_back


def test_a_library_with_many_kinds_of_trouble_is_bounded_all_the_same(bench: Bench) -> None:
    """However different the messages are."""
    shown = 0
    for number in range(600):
        bench.now_s += 0.2
        shown += bench.log(f"trouble with {chr(97 + number % 26)}{chr(97 + number // 26)}") is not None
    assert shown <= MOST * (600 * 0.2 / WINDOW_S + 1)


def test_our_lines_are_never_folded_unless_they_say_so(bench: Bench) -> None:
    """A thousand outcomes are a thousand lines; a retry loop may mark its line."""
    ours = "streamsocial_billing.outcome"
    assert [0] * 1000 == [bench.log("charge failed", name=ours, level=logging.INFO) for _ in range(1000)]
    assert [0] * 1000 == [bench.log("charge failed", name=ours) for _ in range(1000)]
    assert [0, None, None] == [bench.log("task %d: away", task, name=ours, fold=True) for task in range(3)]
    assert 0 == bench.log("task %d: broken", 1, name=ours, fold=True)


def test_what_a_library_merely_tells_is_left_alone(bench: Bench) -> None:
    """INFO was asked for."""
    assert [0] * 5 == [bench.log("joined", level=logging.INFO) for _ in range(5)]


def test_a_complaint_of_kafkas_clients_is_shown_only_if_it_lasts() -> None:
    """A coordinator that is not there yet at a fresh start is no news; a broker that stays away is."""
    bench = Bench(PATIENCE_S)
    shown = []
    for _ in range(20):
        bench.now_s += 0.2
        shown.append(bench.log("no coordinator", name="aiokafka.consumer.group_coordinator"))
    [hidden] = [one for one in shown if one is not None]
    assert hidden in (14, 15)
    bench.now_s += 2 * WINDOW_S
    assert bench.log("no coordinator", name="aiokafka.consumer.group_coordinator") is None


def test_messages_that_are_never_the_same_do_not_fill_the_memory(bench: Bench) -> None:
    """Kinds are forgotten."""
    for number in range(5000):
        bench.log("x" + "y" * (number % 150) + chr(97 + number % 26))
    assert 1000 > len(bench.fold._kinds)  # noqa: SLF001 - its bound is what is tested
