"""What the generator makes, writes down, sends again."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from streamsocial_billing.domain.events import PaymentEvent
from streamsocial_billing.domain.foreign_fields import BadInput
from torture.generator import CHANGED, MALFORMED, RESENT, IntakeLog, Item, Payments, read_log

NOW_MS = 4_000_000_000_000


def made(seed: int, count: int) -> list[Item]:
    """The first so many events of a seed."""
    stream = Payments(seed)
    return [stream.next() for _ in range(count)]


def without_time(items: list[Item]) -> list[tuple[int, str, dict[str, object] | None, bytes | None]]:
    """What a seed decides; when a payment was requested, the clock does."""
    return [(one.number, one.kind, one.payment, one.key) for one in items]


def test_a_seed_makes_the_same_events() -> None:
    """Again and again; another seed makes others."""
    assert without_time(made(3, 500)) == without_time(made(3, 500))
    assert without_time(made(3, 500)) != without_time(made(4, 500))


def test_the_shares_are_those_that_were_ordered() -> None:
    """One in ten sent again, 3 % with another amount, 2 % malformed, within a sixth of that."""
    kinds = Counter(one.kind for one in made(11, 30_000))
    for kind, share in (("resent", RESENT), ("changed", CHANGED), ("malformed", MALFORMED)):
        assert pytest.approx(share, rel=1 / 6) == kinds[kind] / 30_000
    assert (0.10, 0.03, 0.02) == (RESENT, CHANGED, MALFORMED)


def test_repeats_are_of_payments_that_were_made() -> None:
    """Sent again: the same content. Changed: the same payment, user, another amount."""
    first: dict[str, dict[str, object]] = {}
    for one in made(7, 3_000):
        if one.payment is None:
            continue
        payment_id = str(one.payment["payment_id"])
        if one.kind == "new":
            assert payment_id not in first
            first[payment_id] = one.payment
        elif one.kind == "resent":
            assert first[payment_id] == one.payment
        else:
            changed = {name for name in one.payment if one.payment[name] != first[payment_id][name]}
            assert {"amount_minor"} == changed


def test_few_users_are_hot() -> None:
    """Four users have about two fifths of all payments."""
    users = Counter(one.payment["user_id"] for one in made(7, 5_000) if one.payment is not None)
    hot = sum(count for _, count in users.most_common(4))
    assert 0.35 < hot / users.total() < 0.5
    assert 60 == len(users)


def test_what_is_well_formed_is_a_payment_what_is_malformed_is_none() -> None:
    """The product reads each of the first, refuses each of the second."""
    for one in made(13, 5_000):
        if one.kind == "malformed":
            with pytest.raises(BadInput):
                PaymentEvent.from_bytes(one.value, key=one.key, now_ms=NOW_MS)
        else:
            assert one.payment is not None
            event = PaymentEvent.from_bytes(one.value, key=one.key, now_ms=NOW_MS)
            assert one.payment["amount_minor"] == event.amount_minor


def test_some_malformed_records_are_huge() -> None:
    """Near the largest record that the topic takes, so that the dead letter is huge as well."""
    assert any(len(one.value) > 500_000 for one in made(13, 5_000) if one.kind == "malformed")


@pytest.fixture
def log(tmp_path: Path) -> Iterator[IntakeLog]:
    """A new intake log."""
    with closing(IntakeLog(tmp_path / "intake.jsonl")) as one:
        yield one


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where it is."""
    return tmp_path / "intake.jsonl"


def test_the_log_has_an_event_before_its_outcome(log: IntakeLog, path: Path) -> None:
    """Each line is on disk when `write` returns, numbered on from the last one."""
    items = made(1, 5)
    assert (0, 2) == log.write(items[:3])
    assert [0, 1, 2] == [json.loads(line)["n"] for line in path.read_bytes().splitlines()]
    log.outcome((0, 2), "committed")
    assert (3, 4) == log.write(items[3:])
    last = [json.loads(line) for line in path.read_bytes().splitlines()][3:]
    assert [([0, 2], "committed"), (3, None), (4, None)] == [(one["n"], one.get("outcome")) for one in last]


def test_what_is_committed_is_not_sent_again(log: IntakeLog, path: Path) -> None:
    """After a restart: nothing waits, the seed goes on behind what it gave."""
    log.outcome(log.write(made(1, 20)), "committed")
    assert (20, 20, []) == read_log(path)


@pytest.mark.parametrize("outcome", ["aborted", "unknown", None])
def test_what_may_be_missing_is_sent_again_as_it_was(log: IntakeLog, path: Path, outcome: str | None) -> None:
    """Same bytes, same key; a new payment counts as sent again. Killed amid it, there is no outcome."""
    items = made(1, 200)
    log.outcome(log.write(items[:150]), "committed")
    span = log.write(items[150:])
    if outcome is not None:
        log.outcome(span, outcome)
    lines, taken, again = read_log(path)
    assert (200, 200) == (lines, taken)
    assert [(one.key, one.value) for one in items[150:]] == [(one.key, one.value) for one in again]
    assert {"new"}.isdisjoint(one.kind for one in again)


def test_what_was_sent_again_with_success_waits_no_longer(log: IntakeLog, path: Path) -> None:
    """The second try settles the first one's doubt."""
    items = made(1, 30)
    log.outcome(log.write(items), "unknown")
    log.outcome(log.write(items), "committed")
    assert (60, 30, []) == read_log(path)


def test_a_torn_last_line_was_never_sent(log: IntakeLog, path: Path) -> None:
    """It is cut off; the event comes from the seed once more, under the same number."""
    items = made(1, 3)
    log.outcome(log.write(items[:2]), "committed")
    whole = path.read_bytes()
    log.write(items[2:])
    path.write_bytes(path.read_bytes()[:-10])
    assert (2, 2, []) == read_log(path)
    assert whole == path.read_bytes()


def test_a_first_start_has_no_log(path: Path) -> None:
    """Nothing written, nothing taken, nothing waiting."""
    assert (0, 0, []) == read_log(path)
