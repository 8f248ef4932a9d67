"""The rules of the payments design's "Refunds", row by row, through the whole application on one task."""

from typing import Any

import pytest
from msgspec.structs import replace
from support.asked_gateway import HOUR_S, AskedGateway
from support.one_task import OneTask
from support.wishes import charge, refund

from streamsocial_billing.domain.decision import DEDUP_RETENTION_MS
from streamsocial_billing.domain.gateway_calls import (
    Absent,
    Ambiguous,
    Declined,
    Found,
    Invalid,
    KeyMismatch,
    NotSent,
    Outcome,
    RefundRequest,
)
from streamsocial_billing.domain.payment_identity import gateway_key
from streamsocial_billing.payments.waiting_refunds import CHARGE_MAY_COME_MS

MAY_COME_S = CHARGE_MAY_COME_MS // 1000
LOST: list[Outcome | Exception] = [Ambiguous("reset", ask_only=True)] * 99


def said(result: dict[str, Any]) -> tuple[str, str | None, bool]:
    """What a result says in short."""
    return result["status"], result["reason"], result["replayed"]


def went_back(lab: OneTask, charge: str = "c1") -> tuple[int, int]:
    """What the charge's entry says: refunded, reserved."""
    entry = lab.entry("u1", charge)
    return entry["refunded_minor"], entry["reserved_minor"]


def refunded(lab: OneTask, currency: str = "USD") -> int:
    """What the user's state says."""
    amount: int = lab.row("charges", "u1")["money"][currency]["refunded_minor"]
    return amount


def final(lab: OneTask, payment_id: str) -> list[tuple[str, str | None]]:
    """The settling records of a payment."""
    settled = [one for one in lab.results() if one["resolves"] and one["payment_id"] == payment_id]
    return [(one["status"], one["reason"]) for one in settled]


def open_charge(lab: OneTask, gateway: AskedGateway, **fields: Any) -> None:
    """The charge c1, whose outcome nobody knows."""
    gateway.script = LOST.copy()
    lab.send(charge(lab, **fields))
    gateway.script = []


def test_row_refund_goes_to_the_charges_gateway_with_its_own_key(
    lab: OneTask, gateway: AskedGateway
) -> None:
    """One call under the refund's key for the charge's reference; result, metric, state, entry agree."""
    lab.send(charge(lab))
    event = refund(lab)
    (result,) = lab.send(event)
    request = gateway.requests[-1]

    assert ("succeeded", None, False) == said(result)
    assert isinstance(request, RefundRequest)
    assert (gateway_key(event), 200, "USD") == (
        request.idempotency_key, request.amount_minor, request.currency,
    )  # fmt: skip
    assert lab.entry("u1", "c1")["gateway_ref"] == request.charge_ref
    assert ("refund", "c1", "event", False) == (
        result["action"], result["refund_of"], result["origin"], result["resolves"],
    )  # fmt: skip
    assert ("r1", "refund", "succeeded") == tuple(
        lab.metrics()[-1][name] for name in ("payment_id", "action", "status")
    )
    assert (200, 0) == went_back(lab)
    assert {"USD": {"charged_minor": 500, "refunded_minor": 200}} == lab.row("charges", "u1")["money"]


def test_row_refund_again_is_replayed(lab: OneTask, gateway: AskedGateway) -> None:
    """The stored outcome, no second call, no second money."""
    lab.send(charge(lab))
    event = refund(lab)
    lab.send(event)
    calls = len(gateway.calls)
    (again,) = lab.send(event)

    assert ("succeeded", None, True) == said(again)
    assert (calls, (200, 0), 200) == (len(gateway.calls), went_back(lab), refunded(lab))


def test_row_refund_with_another_amount_is_a_mismatch(lab: OneTask, gateway: AskedGateway) -> None:
    """The same id for another refund: not stored, no call."""
    lab.send(charge(lab))
    event = refund(lab)
    lab.send(event)
    calls = len(gateway.calls)
    (other,) = lab.send(replace(event, amount_minor=201))

    assert ("rejected", "idempotency_mismatch", False) == said(other)
    assert (calls, (200, 0)) == (len(gateway.calls), went_back(lab))


def test_row_refund_older_than_the_memory_is_expired(lab: OneTask, gateway: AskedGateway) -> None:
    """As any event."""
    lab.send(charge(lab))
    (result,) = lab.send(refund(lab, requested_at=lab.now_ms - DEDUP_RETENTION_MS - 1))

    assert ("rejected", "expired", False) == said(result)
    assert (None, (0, 0), 1) == (lab.entry("u1", "r1"), went_back(lab), len(gateway.calls))


def test_row_refund_at_a_gateway_that_is_not_configured_is_not_stored(lab: OneTask) -> None:
    """The same event is handled once the gateway is there."""
    lab.send(charge(lab))
    (result,) = lab.send(refund(lab, gateway="stripe"))

    assert ("rejected", "gateway_not_configured", False) == said(result)
    assert None is lab.entry("u1", "r1")


def test_row_two_equal_partial_refunds_both_pass(lab: OneTask, gateway: AskedGateway) -> None:
    """What makes a refund another one is its id, not its amount."""
    lab.send(charge(lab))
    results = lab.send(refund(lab, "r1"), refund(lab, "r2"))

    assert ["succeeded", "succeeded"] == [one["status"] for one in results]
    assert ((400, 0), 400, 2) == (went_back(lab), refunded(lab), len(gateway.refunds))


def test_row_partial_refunds_add_up_to_the_captured_amount(lab: OneTask, gateway: AskedGateway) -> None:
    """What would go beyond is refused for good; what still fits passes."""
    lab.send(charge(lab))
    lab.send(refund(lab, "r1", 300))
    beyond = refund(lab, "r2", 201)
    (refused,), (again,) = lab.send(beyond), lab.send(beyond)
    (fits,) = lab.send(refund(lab, "r3", 200))

    assert ("rejected", "refund_exceeds_charge", False) == said(refused)
    assert ("rejected", "refund_exceeds_charge", True) == said(again)
    assert ("succeeded", (500, 0), 3) == (fits["status"], went_back(lab), len(gateway.calls))


@pytest.mark.parametrize(
    ("outcome", "status"),
    [
        (Ambiguous("timeout"), "unknown"),
        (NotSent("unreachable"), "unknown"),
        (KeyMismatch("idempotency_error"), "parked"),
        (RuntimeError("a bug"), "unknown"),
    ],
    ids=["ambiguous", "not_sent", "parked", "internal_error"],
)
def test_row_reservation_stays_while_unknown_or_parked(
    lab: OneTask, gateway: AskedGateway, outcome: Outcome | Exception, status: str
) -> None:
    """It may have happened: no other refund gets that money."""
    lab.send(charge(lab))
    gateway.script = [outcome] * 99
    (result,) = lab.send(refund(lab, "r1", 300))
    gateway.script = []
    (other,) = lab.send(refund(lab, "r2", 201))

    assert (status, (0, 300), 0) == (result["status"], went_back(lab), refunded(lab))
    assert "refund_exceeds_charge" == other["reason"]


def test_row_reservation_becomes_refunded_when_it_succeeded_after_all(
    lab: OneTask, gateway: AskedGateway
) -> None:
    """A trigger repeats the call under the same key; the money counts once."""
    lab.send(charge(lab))
    gateway.script = [Ambiguous("timeout")] * 99
    event = refund(lab)
    lab.send(event)
    gateway.script = []
    lab.wait(5)
    lab.look()

    assert [("succeeded", None)] == final(lab, "r1")
    assert ((200, 0), 200) == (went_back(lab), refunded(lab))
    assert 0 == lab.entry("u1", "r1")["reserved_minor"]
    assert {gateway_key(event)} == set(gateway.refunds)


@pytest.mark.parametrize(
    ("outcome", "status"), [(Declined("charge_disputed"), "declined"), (Invalid("amount"), "failed")]
)
def test_row_reservation_is_freed_by_declined_or_failed(
    lab: OneTask, gateway: AskedGateway, outcome: Outcome, status: str
) -> None:
    """At once or later: then another refund may have the money."""
    lab.send(charge(lab))
    gateway.script = [outcome, NotSent("auth")]
    (at_once,) = lab.send(refund(lab, "r1", 500))
    gateway.script = [NotSent("unreachable")] * 99
    lab.send(refund(lab, "r2", 500))
    gateway.script = [outcome]
    lab.wait(5)
    lab.look()
    (last,) = lab.send(refund(lab, "r3", 500))

    assert (status, [status]) == (at_once["status"], [one for one, _ in final(lab, "r2")])
    assert ("succeeded", (500, 0), 500) == (last["status"], went_back(lab), refunded(lab))


@pytest.mark.parametrize("way", ["declined", "invalid", "rejected"])
def test_row_declined_failed_or_rejected_charge_has_nothing_to_refund(
    lab: OneTask, gateway: AskedGateway, way: str
) -> None:
    """Final, stored, no call."""
    lab.send(charge(lab, **({"amount_minor": 1} if way == "rejected" else {"payment_method": way})))
    calls = len(gateway.calls)
    event = refund(lab, amount=1)
    (result,), (again,) = lab.send(event), lab.send(event)

    assert [("rejected", "nothing_to_refund", False), ("rejected", "nothing_to_refund", True)] == [
        said(result), said(again),
    ]  # fmt: skip
    assert calls == len(gateway.calls)


def test_row_other_currency_is_a_mismatch(lab: OneTask, gateway: AskedGateway) -> None:
    """Final, stored, whatever the charge's outcome will be."""
    open_charge(lab, gateway)
    calls = len(gateway.calls)
    (result,) = lab.send(refund(lab, currency="EUR"))

    assert ("rejected", "refund_mismatch", False) == said(result)
    assert ("rejected", calls) == (lab.entry("u1", "r1")["status"], len(gateway.calls))


def test_row_other_gateway_is_a_mismatch(gateway: AskedGateway) -> None:
    """The call goes to the charge's gateway or nowhere."""
    other = AskedGateway()
    other.name = "stripe"
    with OneTask(gateway, other) as lab:
        lab.send(charge(lab))
        (result,) = lab.send(refund(lab, gateway="stripe"))

        assert ("rejected", "refund_mismatch", False) == said(result)
        assert [] == other.calls


def test_row_other_account_waits_with_an_alarm(
    lab: OneTask, gateway: AskedGateway, caplog: pytest.LogCaptureFixture
) -> None:
    """Keys and charges belong to an account: it is called at none but the charge's."""
    lab.send(charge(lab))
    gateway.account = "acct_new"
    (result,) = lab.send(refund(lab))
    calls = len(gateway.calls)
    lab.wait(5)
    lab.look()

    assert ("unknown", "gateway_account_changed", False) == said(result)
    assert (1, (0, 200)) == (calls, went_back(lab))
    assert " waits: " in caplog.text
    gateway.account = "acct_scripted"
    lab.wait(HOUR_S)
    lab.look()
    assert ([("succeeded", None)], (200, 0)) == (final(lab, "r1"), went_back(lab))


def test_row_charge_unknown_holds_the_refund_until_it_resolves(lab: OneTask, gateway: AskedGateway) -> None:
    """No call, nothing reserved; released in the unit that settles the charge, called at the next look."""
    open_charge(lab, gateway)
    calls = len(gateway.calls)
    (held,) = lab.send(refund(lab))
    assert ("unknown", "charge_unknown", False) == said(held)
    assert (calls, (0, 0)) == (len(gateway.calls), went_back(lab))
    assert held["processed_at"] == lab.entry("u1", "r1")["held_since"]

    gateway.found = [Found("ch_9", "succeeded", None, 500, "USD", "u1")]
    lab.wait(5)
    lab.look()
    assert ([("succeeded", None)], (0, 200)) == (final(lab, "c1"), went_back(lab))
    assert (None, "ch_9") == tuple(lab.entry("u1", "r1")[name] for name in ("held_since", "charge_ref"))
    lab.look()
    assert ([("succeeded", None)], (200, 0)) == (final(lab, "r1"), went_back(lab))
    assert None is lab.row("awaited_charges", "u1/c1")


def test_row_charge_unknown_that_turns_out_declined_leaves_nothing_to_refund(
    lab: OneTask, gateway: AskedGateway
) -> None:
    """The charge's end is the refund's end, in one unit."""
    open_charge(lab, gateway)
    lab.send(refund(lab))
    calls = len(gateway.calls)
    gateway.found = [Found("ch_9", "declined", "lost_card", 500, "USD", "u1")]
    lab.wait(5)
    lab.look()

    assert [("rejected", "nothing_to_refund")] == final(lab, "r1")
    assert calls == len(gateway.calls)


def test_row_held_refunds_share_what_the_charge_captured(lab: OneTask, gateway: AskedGateway) -> None:
    """Released in their order, until nothing is left for the next one."""
    open_charge(lab, gateway)
    lab.send(refund(lab, "r1", 300), refund(lab, "r2", 300), refund(lab, "r3", 200))
    gateway.found = [Found("ch_9", "succeeded", None, 500, "USD", "u1")]
    lab.wait(5)
    lab.look()
    assert ([("rejected", "refund_exceeds_charge")], (0, 500)) == (final(lab, "r2"), went_back(lab))
    lab.look()

    assert [("succeeded", None)] == final(lab, "r1") == final(lab, "r3")
    assert ((500, 0), 500) == (went_back(lab), refunded(lab))


def test_row_no_such_charge_holds_the_refund_which_may_have_overtaken_it(
    lab: OneTask, gateway: AskedGateway
) -> None:
    """Released by the charge's own unit when it comes."""
    (held,) = lab.send(refund(lab))
    assert ("unknown", "unknown_charge", False) == said(held)
    lab.wait(MAY_COME_S - 1)
    lab.look()
    assert [] == final(lab, "r1")
    lab.send(charge(lab))
    assert (0, 200) == went_back(lab)
    lab.look()

    assert ([("succeeded", None)], (200, 0)) == (final(lab, "r1"), went_back(lab))
    assert 2 == len(gateway.calls)


def test_row_no_such_charge_for_ten_minutes_is_unknown_charge(lab: OneTask, gateway: AskedGateway) -> None:
    """Final, with one settling record; a charge that comes later is not refunded."""
    event = refund(lab)
    lab.send(event)
    lab.wait(MAY_COME_S)
    lab.look()
    (again,) = lab.send(event)
    lab.send(charge(lab))
    lab.look()

    assert [("rejected", "unknown_charge")] == final(lab, "r1")
    assert ("rejected", "unknown_charge", True) == said(again)
    assert ((0, 0), None, 1) == (went_back(lab), lab.row("awaited_charges", "u1/c1"), len(gateway.calls))


def test_row_no_such_charge_that_comes_but_is_unknown_holds_on(lab: OneTask, gateway: AskedGateway) -> None:
    """There is one, so the ten minutes count no more."""
    lab.send(refund(lab))
    open_charge(lab, gateway)
    lab.wait(2 * MAY_COME_S)
    gateway.found = [Absent()]
    lab.look()
    held = lab.entry("u1", "r1")

    assert ("unknown", "charge_unknown", []) == (held["status"], held["reason"], final(lab, "r1"))


def test_row_charge_without_a_reference_is_refused(lab: OneTask, gateway: AskedGateway) -> None:
    """Nobody can name it to the gateway: what there is to give back is given back there."""
    lab.send(charge(lab))
    lab.put("payments", "u1/c1", lab.entry("u1", "c1") | {"gateway_ref": None})
    (result,) = lab.send(refund(lab))

    assert ("rejected", "charge_without_reference", 1) == (
        result["status"], result["reason"], len(gateway.calls),
    )  # fmt: skip


def test_row_a_refund_is_no_charge(lab: OneTask, gateway: AskedGateway) -> None:
    """A refund of a refund, or of itself, is refused; nothing is called for it."""
    lab.send(charge(lab), refund(lab, "r1"))
    (result,) = lab.send(refund(lab, "r2", refund_of="r1"))

    assert ("rejected", "unknown_charge", False) == said(result)
    assert 2 == len(gateway.calls)


def test_a_re_sent_held_refund_is_told_again_and_looked_at(lab: OneTask, gateway: AskedGateway) -> None:
    """As any open payment: it settles nothing itself, calls nobody."""
    event = refund(lab)
    lab.send(event)
    (again,) = lab.send(event)
    lab.look()

    assert ("unknown", "unknown_charge", True) == said(again)
    assert ([], []) == (final(lab, "r1"), gateway.calls)


def test_a_held_refund_that_waited_for_days_is_tried_as_long_as_any(
    lab: OneTask, gateway: AskedGateway
) -> None:
    """Its window and its patience begin with its release, which is committed before its first call."""
    open_charge(lab, gateway)
    lab.send(refund(lab))
    lab.wait(3 * 24 * HOUR_S)
    gateway.found = [Found("ch_9", "succeeded", None, 500, "USD", "u1")]
    gateway.script = [NotSent("unreachable")]
    lab.look()
    gateway.found = []
    waiting = lab.entry("u1", "r1")
    lab.wait(HOUR_S)
    lab.look()

    assert ("unknown", "gateway_unavailable") == (waiting["status"], waiting["reason"])
    assert [("succeeded", None)] == final(lab, "r1")


@pytest.mark.parametrize("room", [True, False])
def test_a_held_refund_that_a_lost_delivery_may_have_called_is_asked_for_first(
    lab: OneTask, gateway: AskedGateway, room: bool
) -> None:
    """The charge may have been known before the crash; days later its key is forgotten, so no call."""
    open_charge(lab, gateway)
    calls = len(gateway.calls)
    lab.append("payments", b"u1", refund(lab).to_bytes())
    lab.deliver()
    lab.crash()
    lab.handle()
    assert lab.entry("u1", "r1")["ever_ambiguous"]
    if not room:
        lab.put("payments", "u1/c1", lab.entry("u1", "c1") | {"refunded_minor": 400})
    lab.wait(3 * 24 * HOUR_S)
    gateway.found = [
        Found("ch_9", "succeeded", None, 500, "USD", "u1"),
        Found("re_9", "succeeded", None, 200, "USD", "u1"),
    ]
    lab.look()
    lab.wait(5)
    lab.look()

    assert ([("succeeded", None)], "re_9") == (final(lab, "r1"), lab.entry("u1", "r1")["gateway_ref"])
    assert (calls, (200, 0) if room else (600, 0)) == (len(gateway.calls), went_back(lab))


def test_a_refund_past_the_key_window_asks_first(lab: OneTask, gateway: AskedGateway) -> None:
    """With the charge's reference; found: adopted, no second call."""
    lab.send(charge(lab))
    gateway.script = LOST.copy()
    lab.send(refund(lab))
    calls = len(gateway.calls)
    gateway.found = [Found("re_9", "succeeded", None, 200, "USD", "u1")]
    lab.wait(19 * HOUR_S)
    lab.look()
    query = gateway.questions[-1]

    assert ("refund", lab.entry("u1", "c1")["gateway_ref"]) == (query.action, query.charge_ref)
    assert ([("succeeded", None)], (200, 0), calls) == (final(lab, "r1"), went_back(lab), len(gateway.calls))
    assert "re_9" == lab.entry("u1", "r1")["gateway_ref"]


def test_a_refund_handled_past_the_key_window_is_not_called(lab: OneTask, gateway: AskedGateway) -> None:
    """An earlier delivery may have called under a forgotten key: reserved, then asked for."""
    lab.send(charge(lab))
    (result,) = lab.send(refund(lab), at_ms=lab.now_ms - 19 * HOUR_S * 1000)

    assert ("unknown", "key_window_passed", False) == said(result)
    assert ((0, 200), 1) == (went_back(lab), len(gateway.calls))


def test_a_late_refund_of_a_charge_whose_entry_is_small_works(lab: OneTask, gateway: AskedGateway) -> None:
    """Account, reference, amounts are all that it needs; the cap holds there too."""
    lab.send(charge(lab))
    lab.wait(DEDUP_RETENTION_MS / 1000 + HOUR_S)
    lab.look()
    assert "small" in lab.entry("u1", "c1")
    gateway.script = [Ambiguous("timeout")] * 99
    lab.send(refund(lab, "r1", 300))
    held = went_back(lab)
    gateway.script = []
    lab.wait(5)
    lab.look()
    (beyond,) = lab.send(refund(lab, "r2", 201))

    assert ((0, 300), (300, 0)) == (held, went_back(lab))
    assert "refund_exceeds_charge" == beyond["reason"]


def test_a_fully_refunded_charge_frees_its_business_ref(lab: OneTask) -> None:
    """Partly refunded it still holds it."""
    lab.send(charge(lab, business_ref="sub:1"))
    lab.send(refund(lab, "r1", 499))
    (held,) = lab.send(charge(lab, "c2", business_ref="sub:1"))
    lab.send(refund(lab, "r2", 1))
    (free,) = lab.send(charge(lab, "c3", business_ref="sub:1"))

    assert ("duplicate_business_ref", "succeeded") == (held["reason"], free["status"])


def test_a_charge_with_a_reservation_is_never_swept(lab: OneTask, gateway: AskedGateway) -> None:
    """Nor are its refunds, while they are open."""
    lab.send(charge(lab))
    gateway.script = [KeyMismatch("idempotency_error")]
    lab.send(refund(lab))
    lab.wait(DEDUP_RETENTION_MS / 1000 + HOUR_S)
    lab.look()

    assert ("parked", (0, 200)) == (lab.entry("u1", "r1")["status"], went_back(lab))
    assert "small" not in lab.entry("u1", "c1")


def test_a_crash_between_call_and_commit_refunds_once(lab: OneTask, gateway: AskedGateway) -> None:
    """Reservation and outcome are gone with the unit; the event makes the same call again."""
    lab.send(charge(lab))
    event = refund(lab)
    lab.append("payments", b"u1", event.to_bytes())
    gateway.script = [Ambiguous("reset")] * 3
    lab.deliver()
    lab.loop.settle()  # amid the pauses between the tries
    lab.crash()
    assert (0, 0) == went_back(lab)
    gateway.script = []
    lab.handle()

    assert ((200, 0), 200) == (went_back(lab), refunded(lab))
    assert {gateway_key(event)} == set(gateway.refunds)


def test_a_redelivered_refund_beyond_the_cap_is_asked_for_before_it_is_refused(
    lab: OneTask, gateway: AskedGateway
) -> None:
    """Before the crash it may have been called; the room it had then may have gone to the gateway since."""
    lab.send(charge(lab))
    lab.append("payments", b"u1", refund(lab, "r1", 300).to_bytes())
    gateway.script = LOST.copy()
    lab.deliver()
    lab.crash()
    lab.put("payments", "u1/c1", lab.entry("u1", "c1") | {"refunded_minor": 300})
    lab.deliver()
    lab.handle()
    calls = len(gateway.calls)
    doubt = lab.entry("u1", "r1")
    gateway.found = [Absent()]
    lab.wait(5)
    lab.look()
    first_look = final(lab, "r1")
    lab.wait(60)
    lab.look()

    assert ("unknown", "refund_exceeds_charge", 0) == (
        doubt["status"], doubt["reason"], doubt["reserved_minor"],
    )  # fmt: skip
    assert ([], [("rejected", "refund_exceeds_charge")]) == (first_look, final(lab, "r1"))
    assert (calls, (300, 0)) == (len(gateway.calls), went_back(lab))


def test_a_redelivered_refund_beyond_the_cap_that_had_happened_is_adopted(
    lab: OneTask, gateway: AskedGateway, caplog: pytest.LogCaptureFixture
) -> None:
    """The gateway has it: the books say so, and what is odd is said aloud."""
    lab.send(charge(lab))
    lab.append("payments", b"u1", refund(lab, "r1", 300).to_bytes())
    gateway.script = LOST.copy()
    lab.deliver()
    lab.crash()
    lab.put("payments", "u1/c1", lab.entry("u1", "c1") | {"refunded_minor": 300})
    lab.handle()
    gateway.found = [Found("re_9", "succeeded", None, 300, "USD", "u1")]
    lab.wait(5)
    lab.look()

    assert ([("succeeded", None)], 300, (600, 0)) == (final(lab, "r1"), refunded(lab), went_back(lab))
    assert "u1/c1: more went back than was captured" in caplog.text


def test_hundreds_of_refunds_may_wait_for_one_charge(lab: OneTask, gateway: AskedGateway) -> None:
    """The row stays small; what finds no room in it is released by its own look."""
    open_charge(lab, gateway, amount_minor=50_000)
    lab.send(*(refund(lab, f"r{number}", 100) for number in range(110)))
    assert 100 == len(lab.row("awaited_charges", "u1/c1")["refunds"])
    gateway.found = [Found("ch_9", "succeeded", None, 50_000, "USD", "u1")]
    lab.wait(5)
    lab.look()
    gateway.found = []
    lab.look()
    assert (10_000, 0) == went_back(lab)
    lab.wait(HOUR_S)
    lab.look()
    lab.wait(5)  # nobody is triggered twice within that
    lab.look()

    assert (11_000, 0) == went_back(lab)
