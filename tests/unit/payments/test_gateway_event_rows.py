"""What gateways tell: the effects of the payments design's "Webhooks", through the whole app on one task."""

from typing import Any

import orjson
import pytest
from msgspec.structs import replace
from support.asked_gateway import HOUR_S, AskedGateway
from support.audited import breaks
from support.gateway_said import foreign, ours, report, say
from support.one_task import OneTask
from support.wishes import charge, refund

from streamsocial_billing.domain.decision import DEDUP_RETENTION_MS
from streamsocial_billing.domain.gateway_calls import Ambiguous, Found, KeyMismatch, Outcome
from streamsocial_billing.payments.gateway_event import REPORTED_EFFECTS, is_forgettable
from streamsocial_billing.payments.reported_by_gateway import external_id
from streamsocial_billing.settings import GATEWAY_EVENTS
from streamsocial_billing.timers.retention import RetentionTimer

LOST: list[Outcome | Exception] = [Ambiguous("reset", ask_only=True)] * 99


def opened(lab: OneTask, gateway: AskedGateway, *, parked: bool = False) -> None:
    """The charge c1 is open."""
    gateway.script = [KeyMismatch("idempotency_error")] if parked else LOST.copy()
    lab.send(charge(lab))
    gateway.script = []


def said(result: dict[str, Any]) -> tuple[str, str | None, bool, bool]:
    """What a result says in short."""
    return result["status"], result["reason"], result["replayed"], result["resolves"]


def money(lab: OneTask) -> tuple[int, int]:
    """Charged, refunded by the user's state."""
    of = lab.row("charges", "u1")["money"].get("USD", {"charged_minor": 0, "refunded_minor": 0})
    return of["charged_minor"], of["refunded_minor"]


def cap(lab: OneTask) -> tuple[int, int]:
    """What the charge's entry says: refunded, reserved."""
    entry = lab.entry("u1", "c1")
    return entry["refunded_minor"], entry["reserved_minor"]


def counted(effect: str) -> float:
    """The metric."""
    value: float = REPORTED_EFFECTS.labels("simulated", effect)._value.get()  # noqa: SLF001
    return value


# ---- what cannot be handled, what comes again


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        (b"u1", b"not json", "not_json"),
        (b"u1", b"{}", "bad_id"),
        (b"u2", ours("charge", "succeeded", "c1", "ch_1").to_bytes(), "key_mismatch"),
    ],
)
def test_row_bad_record_is_a_dead_letter(lab: OneTask, key: bytes, value: bytes, reason: str) -> None:
    """The partition goes on."""
    lab.append(GATEWAY_EVENTS, key, value)
    say(lab, ours("charge", "succeeded", "c1", "ch_1"))

    assert [reason] == [one["reason"] for one in lab.dead_letters()]
    assert "observed" == lab.entry("u1", "c1")["status"]


def test_row_dedup_by_event_id(lab: OneTask, gateway: AskedGateway) -> None:
    """A second record with the same gateway and event_id changes nothing, whatever it says."""
    opened(lab, gateway)
    message = ours("charge", "pending", "c1", "ch_9")
    say(lab, message)
    before = counted("repeated")
    results = say(lab, replace(message, status="succeeded"))

    assert ([], "unknown", 1) == (results, lab.entry("u1", "c1")["status"], counted("repeated") - before)
    assert None is not lab.row("gateway_events", f"u1/simulated:{message.event_id}")


def test_a_handled_message_is_remembered_for_35_days(lab: OneTask) -> None:
    """Longer than the topic keeps it; then a trigger of the sweep drops it."""
    message = ours("charge", "succeeded", "c1", "ch_1", event_id="evt_a:b/c?d=4242424242424242")
    say(lab, message)
    key = f"u1/simulated:{message.event_id}"
    sweep = RetentionTimer(lab.layer, lab.triggers, "gateway_events", is_forgettable, "gateway_event")  # type: ignore[arg-type]
    lab.wait(DEDUP_RETENTION_MS / 1000 - HOUR_S)
    kept = lab.loop.run_until_complete(sweep.run_once(lab.now_ms)), lab.row("gateway_events", key)
    lab.wait(2 * HOUR_S)
    swept = lab.loop.run_until_complete(sweep.run_once(lab.now_ms))
    lab.handle()

    assert 0 == kept[0] and kept[1] is not None
    assert (1, None) == (swept, lab.row("gateway_events", key))
    assert [] == lab.dead_letters()


# ---- a charge of ours


@pytest.mark.parametrize("parked", [False, True])
@pytest.mark.parametrize(("status", "reason"), [("succeeded", None), ("declined", "lost_card")])
def test_row_open_payment_is_settled(
    lab: OneTask, gateway: AskedGateway, parked: bool, status: str, reason: str | None
) -> None:
    """Unknown or parked: exactly one final record with resolves: true, its metric, no call."""
    opened(lab, gateway, parked=parked)
    calls = len(gateway.calls)
    (result,) = say(lab, ours("charge", status, "c1", "ch_9", reason=reason))
    later = say(lab, ours("charge", status, "c1", "ch_9", reason=reason))
    lab.wait(HOUR_S)
    lab.look()

    assert ((status, reason, False, True), "ch_9") == (said(result), result["gateway_ref"])
    assert (0, "payments") == (result["source"]["offset"], result["source"]["topic"])
    assert ([], calls) == (later, len(gateway.calls))
    assert (500 if status == "succeeded" else 0, 0) == money(lab)
    assert None is lab.row("open_payments", "u1/c1")


def test_a_soft_decline_stays_soft(lab: OneTask, gateway: AskedGateway) -> None:
    """Dunning asks for it."""
    opened(lab, gateway)
    say(lab, ours("charge", "declined", "c1", "ch_9", reason="insufficient_funds", soft=True))

    assert lab.entry("u1", "c1")["soft"]


@pytest.mark.parametrize("other", [{"amount_minor": 501}, {"currency": "EUR"}])
def test_row_disagreeing_money_parks(
    lab: OneTask, gateway: AskedGateway, other: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    """No result, an alarm; a person looks. Once parked it stays so."""
    opened(lab, gateway)
    results = say(lab, ours("charge", "succeeded", "c1", "ch_9", **other))
    entry = lab.entry("u1", "c1")
    say(lab, ours("charge", "succeeded", "c1", "ch_9", **other))

    assert ([], "parked", "found_disagrees") == (results, entry["status"], entry["reason"])
    assert entry == lab.entry("u1", "c1")
    assert "waits for a person" in caplog.text


def test_row_pending_settles_nothing(lab: OneTask, gateway: AskedGateway) -> None:
    """The schedule goes on."""
    opened(lab, gateway)
    before = lab.entry("u1", "c1")
    results = say(lab, ours("charge", "pending", "c1", "ch_9"))

    assert ([], before) == (results, lab.entry("u1", "c1"))


@pytest.mark.parametrize("late", ["declined", "pending"])
def test_row_monotonic_late_messages_never_lower_succeeded(
    lab: OneTask, late: str, caplog: pytest.LogCaptureFixture
) -> None:
    """No result, the entry stays."""
    (paid,) = lab.send(charge(lab))
    entry = lab.entry("u1", "c1")
    results = say(lab, ours("charge", late, "c1", paid["gateway_ref"], reason="lost_card"))

    assert ([], entry, (500, 0)) == (results, lab.entry("u1", "c1"), money(lab))
    assert (late == "declined") == ("it stays" in caplog.text)


@pytest.mark.parametrize("way", ["declined", "invalid", "rejected"])
def test_row_contradiction_changes_nothing_but_is_said_aloud(
    lab: OneTask, way: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Final without money, yet the gateway says it moved: an error line, a count; reconciliation shows it."""
    lab.send(charge(lab, **({"amount_minor": 1} if way == "rejected" else {"payment_method": way})))
    entry, before = lab.entry("u1", "c1"), counted("contradicts")
    results = say(lab, ours("charge", "succeeded", "c1", "ch_9", amount_minor=entry["amount_minor"]))

    assert ([], entry, (0, 0)) == (results, lab.entry("u1", "c1"), money(lab))
    assert 1 == counted("contradicts") - before
    assert any(one.levelname == "ERROR" and "a person has to look" in one.message for one in caplog.records)


@pytest.mark.parametrize("small", [False, True])
def test_row_a_second_charge_under_our_reference_is_said_aloud(lab: OneTask, small: bool) -> None:
    """Another object of the gateway for the same payment is money twice; the first one told again is not."""
    (paid,) = lab.send(charge(lab))
    if small:
        lab.wait(DEDUP_RETENTION_MS / 1000 + HOUR_S)
        lab.look()
    before = counted("contradicts")
    say(lab, ours("charge", "succeeded", "c1", paid["gateway_ref"]))
    same = counted("contradicts") - before
    say(lab, ours("charge", "succeeded", "c1", "ch_second"))

    assert (0, 1) == (same, counted("contradicts") - before)


def test_row_no_entry_but_our_reference_is_observed(lab: OneTask, gateway: AskedGateway) -> None:
    """Adopted by its event: one first result, nobody is called."""
    results = say(lab, ours("charge", "succeeded", "c1", "ch_9", account="acct_seen"))
    entry = lab.entry("u1", "c1")
    (adopted,) = lab.send(charge(lab))

    assert ([], "observed", "acct_seen") == (results, entry["status"], entry["gateway_account"])
    assert (("succeeded", None, False, False), "ch_9") == (said(adopted), adopted["gateway_ref"])
    assert ([], (500, 0)) == (gateway.calls, money(lab))


def test_the_account_of_an_observed_payment_is_the_one_called_here(lab: OneTask) -> None:
    """A message that names none is of the gateway that is configured; a refund needs it later."""
    say(lab, ours("charge", "succeeded", "c1", "ch_9"))

    assert "acct_scripted" == lab.entry("u1", "c1")["gateway_account"]


@pytest.mark.parametrize("first", ["pending", "declined"])
def test_row_succeeded_raises_what_was_observed_before(lab: OneTask, first: str) -> None:
    """In any order the highest status counts: what moved, moved."""
    say(lab, ours("charge", first, "c1", "ch_9", reason="processing"))
    say(lab, ours("charge", "succeeded", "c1", "ch_9"), ours("charge", first, "c1", "ch_9"))
    (adopted,) = lab.send(charge(lab))

    assert ("succeeded", None, False, False) == said(adopted)


def test_observed_twice_with_other_money_keeps_the_first(
    lab: OneTask, caplog: pytest.LogCaptureFixture
) -> None:
    """Two truths under one reference: said aloud."""
    say(lab, ours("charge", "pending", "c1", "ch_9"))
    say(lab, ours("charge", "succeeded", "c1", "ch_9", amount_minor=1))

    assert ("pending", 500) == tuple(lab.entry("u1", "c1")[name] for name in ("seen", "amount_minor"))
    assert "a person has to look" in caplog.text


@pytest.mark.parametrize(
    "message",
    [
        ours("charge", "succeeded", "c1", "ch_9", ref="ss1_" + "0" * 56),
        ours("charge", "succeeded", "c1", "ch_9", ref=None),
        report("charge", "succeeded", "ch_9"),
        report("refund", "succeeded", "re_9"),
        report("dispute", "succeeded", "dp_9"),
    ],
    ids=["other_ref", "no_ref", "bare_charge", "refund_of_nobody", "dispute_of_nobody"],
)
def test_row_foreign_is_ignored(lab: OneTask, message: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Not ours: counted, logged at info, no entry, no result."""
    caplog.set_level("INFO", "streamsocial_billing.payments.gateway_event")
    before = counted("foreign")
    results = say(lab, message)

    assert ([], None, 1) == (results, lab.entry("u1", "c1"), counted("foreign") - before)
    assert "is not ours: ignored" in caplog.text
    assert [] == lab.dead_letters()


def test_another_kind_under_a_known_id_changes_nothing(lab: OneTask, gateway: AskedGateway) -> None:
    """A payment_id names one payment of a user, whatever its action."""
    opened(lab, gateway)
    before = lab.entry("u1", "c1")
    say(lab, ours("refund", "succeeded", "c1", "re_9"))

    assert before == lab.entry("u1", "c1")


# ---- a refund of ours


def lost_refund(lab: OneTask, gateway: AskedGateway) -> None:
    """The refund r1 of 2.00 USD is unknown."""
    lab.send(charge(lab))
    gateway.script = LOST.copy()
    lab.send(refund(lab))
    gateway.script = []


@pytest.mark.parametrize(("status", "refunded"), [("succeeded", 200), ("declined", 0)])
def test_row_refund_of_ours_is_settled(
    lab: OneTask, gateway: AskedGateway, status: str, refunded: int
) -> None:
    """Its reservation ends as with any other way of learning it."""
    lost_refund(lab, gateway)
    (result,) = say(lab, ours("refund", status, "r1", "re_9", amount_minor=200, charge_id="c1"))

    assert (status, True) == (result["status"], result["resolves"])
    assert ((refunded, 0), (500, refunded)) == (cap(lab), money(lab))


def test_row_refund_of_ours_without_entry_is_observed(lab: OneTask, gateway: AskedGateway) -> None:
    """A delivery that was lost in a crash had called: its event adopts it, the cap knows it."""
    lab.send(charge(lab))
    calls = len(gateway.calls)
    say(lab, ours("refund", "succeeded", "r1", "re_9", amount_minor=200))
    (adopted,) = lab.send(refund(lab))

    assert (("succeeded", None, False, False), calls) == (said(adopted), len(gateway.calls))
    assert ((200, 0), (500, 200)) == (cap(lab), money(lab))
    assert lab.entry("u1", "c1")["gateway_ref"] == lab.entry("u1", "r1")["charge_ref"]


def test_row_pending_refund_of_ours_is_adopted_with_a_reservation(
    lab: OneTask, gateway: AskedGateway
) -> None:
    """Open at the gateway: it holds its money until it ends."""
    lab.send(charge(lab))
    say(lab, ours("refund", "pending", "r1", "re_9", amount_minor=200))
    (adopted,) = lab.send(refund(lab))
    held = cap(lab)
    say(lab, ours("refund", "declined", "r1", "re_9", amount_minor=200))

    assert ("unknown", "pending_at_gateway", False, False) == said(adopted)
    assert ((0, 200), (0, 0)) == (held, cap(lab))


def test_a_refund_that_has_begun_at_the_gateway_waits_for_its_charge_as_long_as_it_takes(
    lab: OneTask, gateway: AskedGateway
) -> None:
    """The charge must exist, so ten minutes are no proof that it does not."""
    say(lab, ours("refund", "pending", "r1", "re_9", amount_minor=200))
    lab.send(refund(lab))
    reason = lab.entry("u1", "r1")["reason"]
    lab.wait(HOUR_S)
    lab.look()
    waiting = lab.entry("u1", "r1")["status"]
    lab.send(charge(lab))
    lab.wait(5)
    lab.look()

    assert ("charge_unknown", "unknown") == (reason, waiting)
    assert ("succeeded", (200, 0)) == (lab.entry("u1", "r1")["status"], cap(lab))


def test_a_refund_that_has_begun_though_it_may_not_waits_for_a_person(
    lab: OneTask, gateway: AskedGateway
) -> None:
    """The gateway may give the money back: the books do not say that it will not."""
    lab.send(charge(lab), refund(lab, "r0", 400))
    say(lab, ours("refund", "pending", "r1", "re_9", amount_minor=200))
    lab.send(refund(lab))
    entry = lab.entry("u1", "r1")

    assert ("parked", "found_disagrees") == (entry["status"], entry["reason"])
    assert "refund_exceeds_charge" in entry["last_error"]


def test_a_held_refund_that_the_gateway_has_is_settled(lab: OneTask, gateway: AskedGateway) -> None:
    """It waits for nothing any more; it held nothing."""
    opened(lab, gateway)
    lab.send(refund(lab))
    say(lab, ours("refund", "succeeded", "r1", "re_9", amount_minor=200))

    assert ("succeeded", (200, 0)) == (lab.entry("u1", "r1")["status"], cap(lab))
    assert None is lab.row("awaited_charges", "u1/c1")


# ---- refunds, disputes made at the gateway


def test_row_refund_made_at_the_gateway_reduces_the_cap(lab: OneTask) -> None:
    """One result `origin: external` without a source, one metric, the user's state, the charge's entry."""
    lab.send(charge(lab))
    (result,) = say(lab, foreign("refund", "succeeded", "re_x", amount_minor=300))
    (beyond,) = lab.send(refund(lab, "r1", 201))

    expected = {
        "payment_id": external_id("simulated", "re_x"), "action": "refund", "status": "succeeded",
        "reason": None, "replayed": False, "resolves": False, "origin": "external", "source": None,
        "refund_of": "c1", "gateway_ref": "re_x", "amount_minor": 300, "currency": "USD", "attempt": 0,
        "product": "gift", "requested_at": 1_764_600_000_000,
    }  # fmt: skip
    assert expected == {name: result[name] for name in expected}
    assert ((300, 0), (500, 300)) == (cap(lab), money(lab))
    assert (external_id("simulated", "re_x"), None) == tuple(
        lab.metrics()[1][name] for name in ("payment_id", "gateway_ms")
    )
    assert "refund_exceeds_charge" == beyond["reason"]


def test_an_external_id_is_pinned() -> None:
    """Another id for the same object would be a second refund in the books."""
    assert "x1_9f3e73c9384f9abad9c6b2f236560ed2f09d8933" == external_id("simulated", "re_x")
    assert "x1_e927682fcc9b1af5fddad9d367c595a4a017fcde" == external_id("simulated", "re_x", "won")


@pytest.mark.parametrize("again", ["webhook", "reconciliation"])
def test_row_refund_made_at_the_gateway_counts_once(lab: OneTask, again: str) -> None:
    """Whoever tells of it, under whatever event_id, however late."""
    lab.send(charge(lab))
    say(lab, foreign("refund", "succeeded", "re_x", amount_minor=100))
    results = say(lab, foreign("refund", "succeeded", "re_x", amount_minor=100, via=again))
    lab.wait(DEDUP_RETENTION_MS / 1000 + HOUR_S)
    lab.look()
    results += say(lab, foreign("refund", "succeeded", "re_x", amount_minor=100))

    assert ([], (100, 0), (500, 100)) == (results, cap(lab), money(lab))


def test_row_refund_at_the_gateway_above_the_captured_amount_is_said_aloud(
    lab: OneTask, caplog: pytest.LogCaptureFixture
) -> None:
    """The books say what moved, the charge's entry too; there is no room left."""
    lab.send(charge(lab))
    say(lab, foreign("refund", "succeeded", "re_x", amount_minor=400))
    (result,) = say(lab, foreign("refund", "succeeded", "re_y", amount_minor=400))

    assert ("succeeded", 400) == (result["status"], result["amount_minor"])
    assert ((800, 0), (500, 800)) == (cap(lab), money(lab))
    assert "had room for 100" in caplog.text
    assert "refund_exceeds_charge" == lab.send(refund(lab, "r1", 1))[0]["reason"]


def test_row_refund_at_the_gateway_that_is_pending_is_not_booked(lab: OneTask) -> None:
    """In any order with its success."""
    lab.send(charge(lab))
    nothing = say(lab, foreign("refund", "pending", "re_x"))
    say(lab, foreign("refund", "succeeded", "re_x"), foreign("refund", "pending", "re_x"))

    assert ([], (500, 0), (500, 500)) == (nothing, cap(lab), money(lab))


def test_row_refund_at_the_gateway_that_failed_is_not_booked(lab: OneTask) -> None:
    """It failed for good: a success that is told later is older news."""
    lab.send(charge(lab))
    results = say(lab, foreign("refund", "declined", "re_x"), foreign("refund", "succeeded", "re_x"))

    assert ([], (0, 0), (500, 0)) == (results, cap(lab), money(lab))


def test_row_refund_at_the_gateway_of_a_charge_that_is_not_there_yet_waits(lab: OneTask) -> None:
    """Booked in the unit of the charge's own event, behind its result."""
    before = say(lab, foreign("refund", "succeeded", "re_x", amount_minor=100))
    charged, gone = lab.send(charge(lab))

    assert [] == before
    assert [("c1", "event"), (external_id("simulated", "re_x"), "external")] == [
        (one["payment_id"], one["origin"]) for one in (charged, gone)
    ]
    assert ((100, 0), (500, 100)) == (cap(lab), money(lab))
    assert None is lab.row("awaited_charges", "u1/c1")


def test_row_refund_at_the_gateway_of_an_open_charge_counts_at_once(
    lab: OneTask, gateway: AskedGateway
) -> None:
    """The charge is still settled by what is told of itself."""
    opened(lab, gateway)
    say(lab, foreign("refund", "succeeded", "re_x", amount_minor=100))
    say(lab, ours("charge", "succeeded", "c1", "ch_9"))

    assert ((100, 0), (500, 100)) == (cap(lab), money(lab))


def test_row_refund_at_the_gateway_of_a_small_charge(lab: OneTask) -> None:
    """A year later it is still known which product it was."""
    lab.send(charge(lab))
    lab.wait(DEDUP_RETENTION_MS / 1000 + HOUR_S)
    lab.look()
    (result,) = say(lab, foreign("refund", "succeeded", "re_x", amount_minor=100))

    assert ("gift", (100, 0)) == (result["product"], cap(lab))


def test_a_refund_of_another_charge_under_a_known_id_is_foreign(lab: OneTask) -> None:
    """The gateway's own id of the charge has to be ours."""
    lab.send(charge(lab))
    results = say(lab, foreign("refund", "succeeded", "re_x", charge_ref="ch_of_somebody"))

    assert ([], (0, 0)) == (results, cap(lab))


def test_row_dispute_takes_money_back(lab: OneTask) -> None:
    """A refund in the books, with the reason `dispute`; it uses up the cap."""
    lab.send(charge(lab))
    (result,) = say(lab, foreign("dispute", "succeeded", "dp_1", reason="fraudulent"))
    (late,) = lab.send(refund(lab, "r1", 1))

    assert ("refund", "succeeded", "dispute", "external") == tuple(
        result[name] for name in ("action", "status", "reason", "origin")
    )
    assert ((500, 0), (500, 500), "refund_exceeds_charge") == (cap(lab), money(lab), late["reason"])


def test_row_won_dispute_gives_it_back(lab: OneTask) -> None:
    """A charge of its own in the books: outcomes never change. The cap is as before; told twice, once."""
    lab.send(charge(lab))
    say(lab, foreign("dispute", "succeeded", "dp_1"))
    (won,) = say(lab, foreign("dispute", "declined", "dp_1"))
    again = say(lab, foreign("dispute", "declined", "dp_1"), foreign("dispute", "succeeded", "dp_1"))
    (late,) = lab.send(refund(lab, "r1", 500))
    (of_won,) = lab.send(replace(refund(lab, "r2", 1), refund_of=won["payment_id"]))

    assert ("charge", "succeeded", "dispute_won", "external", "c1") == tuple(
        won[name] for name in ("action", "status", "reason", "origin", "refund_of")
    )
    assert ([], "succeeded", (500, 0), (1000, 1000)) == (again, late["status"], cap(lab), money(lab))
    assert "rejected" == of_won["status"]


def test_row_dispute_that_ends_before_it_took_anything(lab: OneTask) -> None:
    """Won first, opened later: the messages came in the wrong order, nothing is to be booked."""
    lab.send(charge(lab))
    results = say(lab, foreign("dispute", "declined", "dp_1"), foreign("dispute", "succeeded", "dp_1"))

    assert ([], (0, 0), (500, 0)) == (results, cap(lab), money(lab))


@pytest.mark.parametrize("order", [(0, 1, 2), (0, 2, 1), (2, 0, 1), (1, 0, 2)])
def test_row_a_dispute_counts_what_moved_in_all_so_far(lab: OneTask, order: tuple[int, ...]) -> None:
    """5.00 withdrawn, 2.00 reinstated, closed as lost: 3.00 are lost. Told again, nothing changes."""
    taken = foreign("dispute", "succeeded", "dp_1")
    returned = foreign("dispute", "declined", "dp_1", amount_minor=200)
    messages = [[taken], [taken, returned], [replace(taken, event_id="e1"), replace(returned, event_id="e2")]]
    lab.send(charge(lab))
    for number in (*order, *order):
        say(lab, *messages[number])
    charged, refunded = money(lab)

    assert ((300, 0), 200) == (cap(lab), charged - refunded)
    assert [] == breaks(lab)


@pytest.mark.parametrize("first", ["charge", "dispute"])
def test_row_one_repair_says_what_a_dispute_took_and_what_came_back(lab: OneTask, first: str) -> None:
    """Of a charge that is here, and of one whose event comes later; told again, nothing changes."""
    repair = foreign("dispute", "succeeded", "dp_1", returned_minor=200, via="reconciliation")
    if first == "charge":
        lab.send(charge(lab))
    say(lab, repair)
    kept = lab.row("awaited_charges", "u1/c1")
    lab.send(charge(lab))
    say(lab, replace(repair, event_id="again"), foreign("dispute", "declined", "dp_1", amount_minor=200))
    charged, refunded = money(lab)

    assert ((300, 0), 200, []) == (cap(lab), charged - refunded, breaks(lab))
    assert first == "charge" or ["succeeded", "declined"] == [one["status"] for one in kept["told"]]
    assert first == "charge" or all("returned_minor" not in one for one in kept["told"])


@pytest.mark.parametrize("returned", [-1, 501, "200", True])
def test_row_a_dispute_of_which_more_came_back_than_it_took_is_a_dead_letter(
    lab: OneTask, returned: object
) -> None:
    """It cannot be so."""
    said = foreign("dispute", "succeeded", "dp_1").as_json() | {"returned_minor": returned}
    lab.append(GATEWAY_EVENTS, b"u1", orjson.dumps(said))
    lab.handle()

    assert ["bad_amount"] == [one["reason"] for one in lab.dead_letters()]


def test_row_a_dispute_that_moves_money_more_than_once_is_followed(lab: OneTask) -> None:
    """Withdrawn, reinstated, withdrawn again: each difference is a result of its own."""
    lab.send(charge(lab))
    totals = [("succeeded", 300), ("declined", 100), ("declined", 300), ("succeeded", 600), ("declined", 400)]
    results = [say(lab, foreign("dispute", status, "dp_1", amount_minor=sum_)) for status, sum_ in totals]

    assert [300, 100, 200, 300, 100] == [one["amount_minor"] for (one,) in results]
    assert 5 == len({one["payment_id"] for (one,) in results})
    assert ((200, 0), []) == (cap(lab), breaks(lab))


def test_row_an_inquiry_that_was_closed_and_then_took_money_is_booked(lab: OneTask) -> None:
    """Closed without money it says nothing; what an earlier release noted of it, a repair overrules."""
    lab.send(charge(lab))
    say(lab, foreign("dispute", "pending", "dp_1"))
    (now,) = say(lab, foreign("dispute", "succeeded", "dp_1", amount_minor=100))
    say(lab, foreign("dispute", "declined", "dp_2"))
    (repaired,) = say(lab, foreign("dispute", "succeeded", "dp_2", amount_minor=50, via="reconciliation"))

    assert ("dispute", "dispute") == (now["reason"], repaired["reason"])
    assert ((150, 0), []) == (cap(lab), breaks(lab))


def test_a_won_dispute_gives_back_what_it_took(lab: OneTask) -> None:
    """Refunded, disputed, won: the refund still counts."""
    lab.send(charge(lab), refund(lab, "r1", 300))
    say(lab, foreign("dispute", "succeeded", "dp_1"))
    both = cap(lab)
    say(lab, foreign("dispute", "declined", "dp_1"))

    assert ((800, 0), (300, 0)) == (both, cap(lab))


def test_an_event_under_an_external_id_is_a_mismatch(lab: OneTask) -> None:
    """Nobody sends what the gateway made."""
    lab.send(charge(lab))
    (made,) = say(lab, foreign("refund", "succeeded", "re_x"))
    (result,) = lab.send(refund(lab, made["payment_id"], 500))

    assert ("rejected", "idempotency_mismatch", False, False) == said(result)


def test_a_crash_amid_a_message_leaves_nothing_half_done(lab: OneTask) -> None:
    """Dedup mark, money, result are one unit."""
    lab.send(charge(lab))
    message = foreign("refund", "succeeded", "re_x", amount_minor=100)
    lab.append(GATEWAY_EVENTS, b"u1", message.to_bytes())
    lab.crash()
    lab.handle()

    assert ((100, 0), (500, 100)) == (cap(lab), money(lab))


def test_what_a_question_finds_and_what_a_message_tells_are_one(lab: OneTask, gateway: AskedGateway) -> None:
    """The trigger came first: the message changes nothing."""
    opened(lab, gateway)
    gateway.found = [Found("ch_9", "succeeded", None, 500, "USD", "u1")]
    lab.wait(5)
    lab.look()
    results = say(lab, ours("charge", "succeeded", "c1", "ch_9"))

    assert ([], (500, 0)) == (results, money(lab))
