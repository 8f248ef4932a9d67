"""The checker finds nothing in a good history, and something in every spoilt one."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.good_history import GROUP, PAYMENTS, GoodRun

from streamsocial_billing.audit.books import LedgerCharge
from streamsocial_billing.audit.checks import Problem
from torture.checker import MEMORY_BOUND_BYTES, Sending, violations
from torture.segments import Written

TOPICS = ("charge-results", "payment-metrics", "payments-dlq", "payments", "charges", "offsets")


def test_a_good_history_has_no_violation() -> None:
    """Re-sent and malformed events among them."""
    run = GoodRun(seed=3)
    assert [] == violations(run.history())
    assert len(run.ledger) < len(run.events)
    assert run.topics["payments-dlq"]


def drop(records: list[Any], at: int) -> None:
    """One record is gone."""
    del records[at]


def double(records: list[Any], at: int) -> None:
    """One record is there twice."""
    records.insert(at, records[at])


def spoil(records: list[Any], at: int) -> None:
    """One record says something else."""
    one = records[at]
    if isinstance(one, Written):
        records[at] = dataclasses.replace(one, value=_other(one.value or b""), headers=_elsewhere(one))
    elif isinstance(one, LedgerCharge):
        records[at] = one._replace(amount_minor=one.amount_minor + 1)
    else:
        records[at] = (*one[:2], one[2] + b" ")


def _other(value: bytes) -> bytes:
    """Another amount, another offset."""
    if value.startswith(b"{"):
        told = orjson.loads(value)
        if "money" in told:
            told["money"]["EUR"]["charged_minor"] += 1
        else:
            told["amount_minor"] += 1
            told["status"] = "declined"
        return orjson.dumps(told)
    return value[:-1] + bytes([value[-1] + 1])


def _elsewhere(one: Written) -> tuple[tuple[str, bytes], ...]:
    """A dead letter of another event."""
    return tuple((name, b"payments/0/999" if name == "source" else value) for name, value in one.headers)


@pytest.mark.parametrize("spoilt", [drop, double, spoil])
@pytest.mark.parametrize("what", [*TOPICS, "events", "ledger"])
@given(seed=st.integers(0, 10_000), at=st.integers(0, 10_000))
@settings(max_examples=15, deadline=None)
def test_one_record_dropped_doubled_or_changed_is_found(
    what: str, spoilt: Callable[[list[Any], int], None], seed: int, at: int
) -> None:
    """Whatever the record is, wherever it stands."""
    run = GoodRun(seed)
    records: list[Any] = getattr(run, what) if what in ("events", "ledger") else run.topics[what]
    at %= len(records)
    if harmless(what, spoilt, records, at):
        return
    spoilt(records, at)
    assert violations(run.history())


def harmless(what: str, spoilt: Callable[[list[Any], int], None], records: list[Any], at: int) -> bool:
    """What no reader can tell from a good history: the same value of a table, the same offset, once more.

    A changelog record that a later one replaces is looked for in its transaction, so a dropped one is found.
    """
    return spoilt is double and what in ("payments", "charges", "offsets")


def test_records_of_another_transaction_are_torn_units() -> None:
    """Each part of a unit, moved to the transaction before, is missed."""
    for topic in ("payment-metrics", "payments", "charges", "offsets"):
        run = GoodRun(seed=5)
        records = run.topics[topic]
        records[4] = dataclasses.replace(records[4], transaction=(records[4].transaction or 0) + 100)
        assert {"torn unit"} <= {problem.kind for problem in violations(run.history())}, topic


def test_an_offset_that_goes_back_is_found() -> None:
    """Two steps of a partition change places."""
    run = GoodRun(seed=5)
    steps = run.topics["offsets"]
    values = steps[1].value, steps[2].value
    steps[1] = dataclasses.replace(steps[1], value=values[1])
    steps[2] = dataclasses.replace(steps[2], value=values[0])
    assert "offset goes back" in kinds(run)


def test_an_older_epoch_after_a_newer_one_is_found() -> None:
    """The first record claims to be of a newer incarnation than those behind it."""
    run = GoodRun(seed=5)
    results = run.topics["charge-results"]
    results[0] = dataclasses.replace(results[0], epoch=7)
    assert "older generation" in kinds(run)


def test_answers_of_a_user_in_the_wrong_order_are_found() -> None:
    """Two results of one user lie the other way round in the log."""
    run = GoodRun(seed=5)
    results = run.topics["charge-results"]
    first = results[0]
    other = next(n for n, one in enumerate(results) if n and one.key == first.key)
    results[0], results[other] = (
        dataclasses.replace(results[other], offset=first.offset),
        dataclasses.replace(first, offset=results[other].offset),
    )
    assert "out of order" in kinds(run)


@pytest.mark.parametrize(
    ("outcome", "there", "kind"),
    [("aborted", 2, "intake"), ("committed", 1, "intake"), ("unknown", 1, "half an intake transaction")],
)
def test_intake_transactions_are_all_or_nothing(outcome: str, there: int, kind: str) -> None:
    """What an aborted one appended, what a committed one did not, half of an unknown one are found."""
    run = GoodRun(seed=5)
    history = run.history()
    values = (b"one", b"two")
    history.sendings = [*history.sendings, Sending(values, outcome)]
    history.appended.update(values[:there])
    assert kind in {problem.kind for problem in violations(history)}


def test_what_is_left_at_the_end_is_found() -> None:
    """Lag, an open transaction, a database that differs, a worker that grew."""
    history = GoodRun(seed=5).history()
    history.lag = [("payments", 0, 1)]
    history.unstable = [("charge-results", 0, 2)]
    history.on_disk = [Problem("disk", "w1", "differs")]
    history.peak_bytes = {"w1": MEMORY_BOUND_BYTES + 1}
    found = [problem.kind for problem in violations(history)]
    assert ["disk", "lag", "open transaction", "memory"] == found


def test_other_groups_are_none_of_our_business() -> None:
    """An offset of another group is not a step."""
    run = GoodRun(seed=5)
    step = run.topics["offsets"][0]
    other = step.key.replace(GROUP.encode(), b"another")
    run.topics["offsets"].insert(0, dataclasses.replace(step, key=other, value=step.value))
    assert [] == violations(run.history())
    assert PAYMENTS.encode() in other


def kinds(run: GoodRun) -> set[str]:
    """What the checker says of a run."""
    return {problem.kind for problem in violations(run.history())}


def test_seeds_make_different_histories() -> None:
    """Else the property above would look at one history only."""
    sizes = {len(GoodRun(random.Random(n).randrange(1000)).ledger) for n in range(10)}
    assert 1 < len(sizes)
