"""The tables of the payments design, row by row, through the whole application on one task."""

from typing import Any

import orjson
import pytest
from msgspec.structs import replace
from support.asked_gateway import HOUR_S, AskedGateway
from support.one_task import OneTask
from support.wishes import payment

from streamsocial_billing.domain.decision import DEDUP_RETENTION_MS
from streamsocial_billing.domain.gateway_calls import (
    Ambiguous,
    Declined,
    Found,
    Invalid,
    KeyMismatch,
    NotSent,
    Outcome,
)
from streamsocial_billing.domain.payment_identity import gateway_key
from streamsocial_billing.domain.statuses import OPEN
from streamsocial_billing.settings import PAYMENTS
from tables.payments import ObservedEntry

DAY_S = 24 * HOUR_S


def said(result: dict[str, Any]) -> tuple[str, str | None, bool]:
    """What a result says in short."""
    return result["status"], result["reason"], result["replayed"]


# ---- the decision before the gateway


def test_row_none_is_charged(lab: OneTask, gateway: AskedGateway) -> None:
    """No entry: one call with the event's own key, one result, one metric."""
    event = payment(lab)
    results = lab.send(event)

    assert [("succeeded", None, False)] == [said(one) for one in results]
    assert [gateway_key(event)] == [key for key, _ in gateway.calls]
    assert ["succeeded"] == [one["status"] for one in lab.metrics()]


@pytest.mark.parametrize("way", ["pm_card_visa", "declined", "invalid"])
def test_row_final_and_equal_is_replayed(lab: OneTask, gateway: AskedGateway, way: str) -> None:
    """The stored outcome, `replayed: true`, its own source; no call, the entry stays."""
    event = payment(lab, payment_method=way)
    (first,) = lab.send(event)
    entry, calls = lab.entry("u1", "p1"), len(gateway.calls)
    (again,) = lab.send(event)

    changed = {"replayed": True, "processed_at": again["processed_at"], "source": again["source"]}
    assert first | changed == again
    assert (0, 1) == (first["source"]["offset"], again["source"]["offset"])
    assert (entry, calls) == (lab.entry("u1", "p1"), len(gateway.calls))


def test_row_final_stored_rejection_and_equal_is_replayed(lab: OneTask, gateway: AskedGateway) -> None:
    """A stored rejection comes again with what it conflicted with."""
    lab.send(payment(lab, "p1", business_ref="sub:1"))
    second = payment(lab, "p2", business_ref="sub:1")
    (first,), (again,) = lab.send(second), lab.send(second)

    assert ("rejected", "duplicate_business_ref", False, "p1") == (*said(first), first["conflicts_with"])
    assert ("rejected", "duplicate_business_ref", True, "p1") == (*said(again), again["conflicts_with"])
    assert 1 == len(gateway.calls)


@pytest.mark.parametrize("way", ["pm_card_visa", "declined", "invalid", "ambiguous", "mismatch"])
def test_row_any_with_another_fingerprint_is_a_mismatch(
    lab: OneTask, gateway: AskedGateway, way: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever the status: rejected, not stored, no call; both fingerprints in the log."""
    event = payment(lab, payment_method=way)
    lab.send(event)
    entry, calls = lab.entry("u1", "p1"), len(gateway.calls)
    (result,) = lab.send(replace(event, amount_minor=501))

    assert ("rejected", "idempotency_mismatch", False) == said(result)
    assert (entry, calls) == (lab.entry("u1", "p1"), len(gateway.calls))
    assert f"stored {entry['fingerprint']}, got " in caplog.text


@pytest.mark.parametrize(("way", "status"), [("ambiguous", "unknown"), ("mismatch", "parked")])
def test_row_open_and_equal_is_told_again_but_not_settled(
    lab: OneTask, gateway: AskedGateway, way: str, status: str
) -> None:
    """`replayed: true`, no call; the next try of an unknown payment moves forward, its schedule does not."""
    event = payment(lab, payment_method=way)
    lab.send(event)
    calls, before = len(gateway.calls), lab.entry("u1", "p1")
    (again,) = lab.send(event)
    entry = lab.entry("u1", "p1")

    assert (status, True, False) == (again["status"], again["replayed"], again["resolves"])
    assert calls == len(gateway.calls)
    due = None if status == "parked" else again["processed_at"]
    assert before | {"next_try_at": due} == entry
    assert (before["due_at"] is None) == (status == "parked")


def observed(lab: OneTask, **fields: Any) -> None:
    """An entry as a webhook leaves it."""
    value: ObservedEntry = {
        "status": "observed", "seen": "succeeded", "reason": None, "action": "charge",
        "gateway": "simulated", "gateway_account": "acct_seen", "gateway_ref": "ch_seen",
        "amount_minor": 500, "currency": "USD", "soft": False, "observed_at": lab.now_ms,
    }  # fmt: skip
    lab.put("payments", "u1/p1", value | fields)


def test_row_observed_with_equal_amount_and_currency_is_adopted(lab: OneTask, gateway: AskedGateway) -> None:
    """The fingerprint is set, the outcome is told with `replayed: false`; nobody is called, then or later."""
    observed(lab)
    event = payment(lab, business_ref="sub:1")
    (result,), (again,) = lab.send(event), lab.send(event)
    entry = lab.entry("u1", "p1")

    assert ("succeeded", None, False) == said(result) and ("succeeded", None, True) == said(again)
    assert ("ch_seen", 0) == (result["gateway_ref"], result["attempt"])
    assert ("acct_seen", 64) == (entry["gateway_account"], len(entry["fingerprint"]))
    assert [] == gateway.calls
    assert 500 == lab.row("charges", "u1")["money"]["USD"]["charged_minor"]


@pytest.mark.parametrize("other", [{"amount_minor": 501}, {"currency": "EUR"}, {"action": "refund"}])
def test_row_observed_with_other_money_is_a_mismatch(
    lab: OneTask, gateway: AskedGateway, other: dict[str, Any]
) -> None:
    """What the gateway has under this id is not what the event means: rejected, not stored, no call."""
    observed(lab, **other)
    (result,) = lab.send(payment(lab))

    assert ("rejected", "idempotency_mismatch", False) == said(result)
    assert "observed" == lab.entry("u1", "p1")["status"]
    assert [] == gateway.calls


def test_row_observed_pending_is_adopted_as_unknown(lab: OneTask, gateway: AskedGateway) -> None:
    """The gateway has it but not its end: open, settled by the resolver."""
    observed(lab, seen="pending")
    (result,) = lab.send(payment(lab))

    assert ("unknown", "pending_at_gateway", False) == said(result)
    assert "unknown" == lab.row("open_payments", "u1/p1")["status"]
    assert [] == gateway.calls


@pytest.mark.parametrize("old", ["requested_at", "append time"])
def test_row_none_and_older_than_the_memory_is_expired(lab: OneTask, gateway: AskedGateway, old: str) -> None:
    """The older of the event's own and the broker's time counts; rejected, not stored, never charged."""
    then = lab.now_ms - DEDUP_RETENTION_MS - 1
    event = payment(lab, requested_at=then if old == "requested_at" else lab.now_ms)
    (result,) = lab.send(event, at_ms=then if old == "append time" else None)

    assert ("rejected", "expired", False) == said(result)
    assert (None, []) == (lab.entry("u1", "p1"), gateway.calls)


def test_row_gateway_not_configured_is_not_stored(lab: OneTask, gateway: AskedGateway) -> None:
    """Rejected; the same event is charged once the gateway is there."""
    (result,) = lab.send(payment(lab, gateway="stripe"))

    assert ("rejected", "gateway_not_configured", False) == said(result)
    assert (None, []) == (lab.entry("u1", "p1"), gateway.calls)


@pytest.mark.parametrize(
    ("amount", "reason"), [(49, "amount_below_minimum"), (100_000_000, "amount_above_maximum")]
)
def test_row_limit_refusals_are_stored(lab: OneTask, gateway: AskedGateway, amount: int, reason: str) -> None:
    """Checked before the call by the gateway's traits; final, replayed, another amount needs another id."""
    event = payment(lab, amount_minor=amount)
    (result,), (again,) = lab.send(event), lab.send(event)
    (other,) = lab.send(replace(event, amount_minor=500))
    least, yen = payment(lab, "p2", amount_minor=50), payment(lab, "p3", amount_minor=1, currency="JPY")
    fine = [one["status"] for one in lab.send(least, yen)]

    assert [("rejected", reason, False), ("rejected", reason, True)] == [said(result), said(again)]
    assert ("rejected", "idempotency_mismatch", False) == said(other)
    assert ["succeeded", "succeeded"] == fine
    assert 2 == len(gateway.calls)


# ---- the business_ref guard


@pytest.mark.parametrize("way", ["pm_card_visa", "ambiguous", "mismatch"])
def test_row_business_ref_is_held_while_succeeded_unknown_or_parked(
    lab: OneTask, gateway: AskedGateway, way: str
) -> None:
    """Another payment_id for the same thing is refused, the first id is named."""
    lab.send(payment(lab, "p1", business_ref="a/b:1", payment_method=way))
    calls = len(gateway.calls)
    (second,) = lab.send(payment(lab, "p2", business_ref="a/b:1"))

    assert ("rejected", "duplicate_business_ref", "p1") == (
        second["status"], second["reason"], second["conflicts_with"],
    )  # fmt: skip
    assert calls == len(gateway.calls)


@pytest.mark.parametrize("way", ["declined", "invalid", "rejected"])
def test_row_business_ref_is_freed_by_declined_failed_rejected(
    lab: OneTask, gateway: AskedGateway, way: str
) -> None:
    """What moved no money holds nothing."""
    changes: dict[str, Any] = {"amount_minor": 1} if way == "rejected" else {"payment_method": way}
    lab.send(payment(lab, "p1", business_ref="sub:1", **changes))
    (second,) = lab.send(payment(lab, "p2", business_ref="sub:1"))

    assert "succeeded" == second["status"]


@pytest.mark.parametrize(("refunded", "held"), [(0, True), (499, True), (500, False)])
def test_row_business_ref_is_freed_by_a_full_refund_only(lab: OneTask, refunded: int, held: bool) -> None:
    """Partly refunded is still succeeded."""
    lab.send(payment(lab, "p1", business_ref="sub:1"))
    lab.put("payments", "u1/p1", lab.entry("u1", "p1") | {"refunded_minor": refunded})
    (second,) = lab.send(payment(lab, "p2", business_ref="sub:1"))

    assert held == (second["reason"] == "duplicate_business_ref")


def test_row_business_ref_is_freed_when_the_unknown_one_turns_out_declined(
    lab: OneTask, gateway: AskedGateway
) -> None:
    """Refused while open, charged after; the refusal before stays what it was."""
    gateway.script = [Ambiguous("reset", ask_only=True)] * 99
    lab.send(payment(lab, "p1", business_ref="sub:1"))
    gateway.script = []
    early = payment(lab, "p2", business_ref="sub:1")
    (refused,) = lab.send(early)
    gateway.found = [Found("ch_9", "declined", "lost_card", 500, "USD", "u1")]
    lab.wait(5)
    lab.look()
    (late,), (again,) = lab.send(payment(lab, "p3", business_ref="sub:1")), lab.send(early)

    assert "duplicate_business_ref" == refused["reason"]
    assert "declined" == lab.entry("u1", "p1")["status"]
    assert ("succeeded", True) == (late["status"], again["replayed"])


# ---- outcomes


@pytest.mark.parametrize(
    ("outcome", "status", "reason", "doubt"),
    [
        (Declined("lost_card", "ch_1"), "declined", "lost_card", False),
        (Declined("insufficient_funds", "ch_1", soft=True), "declined", "insufficient_funds", False),
        (Invalid("parameter_invalid"), "failed", "invalid_request", False),
        (KeyMismatch("idempotency_error"), "parked", "key_mismatch_at_gateway", True),
        (NotSent("unreachable"), "unknown", "gateway_unavailable", False),
        (NotSent("rate_limited", 3.0), "unknown", "gateway_unavailable", False),
        (NotSent("auth"), "unknown", "gateway_unavailable", False),
        (NotSent("breaker_open", 30.0), "unknown", "gateway_unavailable", False),
        (Ambiguous("timeout"), "unknown", "outcome_unknown", True),
        (Ambiguous("server_error", ask_only=True), "unknown", "outcome_unknown", True),
    ],
    ids=["declined_hard", "declined_soft", "invalid_request", "mismatch_at_gateway", "not_sent",
         "rate_limited", "auth", "breaker_open", "ambiguous", "ambiguous_stored"],
)  # fmt: skip
def test_row_outcome(
    lab: OneTask, gateway: AskedGateway, outcome: Outcome, status: str, reason: str, doubt: bool
) -> None:
    """Each class of outcomes ends in its status; what stays open is listed, all else is not."""
    gateway.script = [outcome] * 99
    (result,) = lab.send(payment(lab))
    entry = lab.entry("u1", "p1")

    assert (status, reason, False) == said(result)
    assert (status, reason, doubt) == (entry["status"], entry["reason"], entry["ever_ambiguous"])
    assert (status in OPEN) == (lab.row("open_payments", "u1/p1") is not None)
    assert isinstance(outcome, Declined) and outcome.soft == entry["soft"] or not entry["soft"]


def test_row_outcome_internal_error_after_the_call_began(lab: OneTask, gateway: AskedGateway) -> None:
    """No exception after the call ends in a dead letter: unknown, with its entry, tried again."""
    gateway.script = [RuntimeError("a bug")]
    (result,) = lab.send(payment(lab))

    assert ("unknown", "internal_error", False) == said(result)
    assert lab.entry("u1", "p1")["ever_ambiguous"]
    lab.wait(5)
    assert 1 == lab.look()
    assert ["succeeded"] == [one["status"] for one in lab.results() if one["resolves"]]
    assert [] == lab.dead_letters()


def test_an_open_payment_lists_what_alarms_need(lab: OneTask) -> None:
    """Status, since when, where: parked ones too, with no next try."""
    lab.send(payment(lab, "p1", payment_method="mismatch"), payment(lab, "p2", payment_method="ambiguous"))
    parked, unknown = lab.row("open_payments", "u1/p1"), lab.row("open_payments", "u1/p2")

    first_seen = lab.entry("u1", "p1")["first_seen_at"]
    assert {
        "next_try_at": None, "status": "parked", "since": first_seen, "gateway": "simulated",
        "account": "acct_scripted", "amount_minor": 500, "currency": "USD",
    } == parked  # fmt: skip
    assert lab.entry("u1", "p2")["next_try_at"] == unknown["next_try_at"]


# ---- bad input


@pytest.mark.parametrize(
    ("changes", "key", "reason"),
    [
        ({"payment_method": "4242424242424242"}, b"u1", "card_number"),
        ({"amount_minor": -5}, b"u1", "bad_amount"),
        ({"currency": "XXZ"}, b"u1", "unknown_currency"),
        ({}, b"u2", "key_mismatch"),
    ],
    ids=["card_number", "negative_amount", "wrong_currency", "mismatching_key"],
)  # fmt: skip
def test_bad_input_is_a_dead_letter_never_a_call(
    lab: OneTask, gateway: AskedGateway, changes: dict[str, Any], key: bytes, reason: str
) -> None:
    """One dead letter with its reason; the next payment goes on; no card number is kept."""
    good = orjson.loads(payment(lab).to_bytes())
    lab.append(PAYMENTS, key, orjson.dumps(good | changes))
    (result,) = lab.send(payment(lab, "p2"))

    assert [reason] == [one["reason"] for one in lab.dead_letters()]
    assert ("succeeded", 1) == (result["status"], len(gateway.calls))
    letters = b"".join(record.value for record in lab.sent("payments-dlq"))
    assert b"4242424242424242" not in letters
