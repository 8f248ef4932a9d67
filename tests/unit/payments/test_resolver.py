"""Open payments in virtual time: when they are tried, how they end."""


import pytest
from support.asked_gateway import HOUR_S, AskedGateway
from support.one_task import OneTask
from support.wishes import payment

from streamsocial_billing.domain.gateway_calls import (
    Absent,
    Ambiguous,
    Answer,
    ChargeRequest,
    Found,
    Invalid,
    NotSent,
    Outcome,
    RefundRequest,
    Succeeded,
    Traits,
)
from streamsocial_billing.domain.payment_entry import SCHEDULE_S
from streamsocial_billing.settings import RETRY, Settings

DAY_S = 24 * HOUR_S
FOUND = Found("ch_9", "succeeded", None, 500, "USD", "u1", "p1")
LOST: list[Outcome | Exception] = [Ambiguous("reset")] * 999
UNSENT: list[Outcome | Exception] = [NotSent("unreachable")] * 999


def is_open(lab: OneTask) -> bool:
    """True while a try is planned."""
    return lab.row("open_payments", "u1/p1")["next_try_at"] is not None


def try_again(lab: OneTask) -> None:
    """Wait until the next try is due, let the timer find it."""
    due_at = lab.entry("u1", "p1")["next_try_at"]
    lab.wait(max(0.0, (due_at - lab.now_ms) / 1000))
    assert 1 == lab.look()


def resolving(lab: OneTask) -> list[tuple[str, str | None]]:
    """The settling results so far."""
    return [(one["status"], one["reason"]) for one in lab.results() if one["resolves"]]


def test_row_tries_follow_the_schedule_then_it_is_parked(
    gateway: AskedGateway, lab: OneTask, caplog: pytest.LogCaptureFixture
) -> None:
    """5 s, 30 s, 2 m, 10 m, 1 h, 6 h, daily five times; then parked with an alarm, without any result."""
    traits = Traits(key_safe_window_s=99 * DAY_S, consistency_delay_s=60)
    lab.gatekeeper.resilient["simulated"].traits = traits
    gateway.script = LOST.copy()
    lab.send(payment(lab))
    pauses, before = [], lab.entry("u1", "p1")["processed_at"]
    while is_open(lab):
        calls = len(gateway.calls)
        try_again(lab)
        entry = lab.entry("u1", "p1")
        pauses.append(round((entry["processed_at"] - before) / 1000))
        before = entry["processed_at"]
        assert calls + 1 == len(gateway.calls)

    assert [5, 30, 120, 600, 3600, 21_600, *[86_400] * 5] == pauses == list(SCHEDULE_S)
    assert ("parked", "tries_used_up") == (entry["status"], entry["reason"])
    assert [] == resolving(lab)
    assert "u1/p1 is parked and waits for a person" in caplog.text
    lab.wait(90 * DAY_S)
    assert (0, "parked") == (lab.look(), lab.row("open_payments", "u1/p1")["status"])


def test_row_ambiguous_inside_the_window_is_repeated_with_the_same_key(
    gateway: AskedGateway, lab: OneTask
) -> None:
    """The repeat is the authority: nobody asks; one settling record, with the first event's source."""
    gateway.script = LOST[:40]
    (first,) = lab.send(payment(lab))
    gateway.script = []
    try_again(lab)
    (settled,) = [one for one in lab.results() if one["resolves"]]

    assert ("succeeded", False, first["source"]) == (
        settled["status"], settled["replayed"], settled["source"],
    )  # fmt: skip
    assert 1 == len({key for key, _ in gateway.calls})
    assert ([], None) == (gateway.questions, lab.row("open_payments", "u1/p1"))


def test_a_repeat_is_the_first_call_word_for_word(gateway: AskedGateway, lab: OneTask) -> None:
    """A gateway that knows its key with other parameters refuses it; made of the entry, not of the event."""
    gateway.script = LOST[:40]
    lab.send(payment(lab, product="gift"))
    gateway.script = []
    try_again(lab)

    assert {"gift"} == {one.product for one in gateway.requests if isinstance(one, ChargeRequest)}
    assert 1 == len(set(gateway.requests))
    assert "succeeded" == lab.entry("u1", "p1")["status"]


def test_row_ambiguous_with_the_replay_mark_is_asked_for_only(gateway: AskedGateway, lab: OneTask) -> None:
    """A repeat would bring the stored error again: no call, one question, adopted."""
    gateway.script = [Ambiguous("server_error", ask_only=True)] * 99
    lab.send(payment(lab))
    calls, gateway.found = len(gateway.calls), [FOUND]
    try_again(lab)

    assert ([("succeeded", None)], calls, 1) == (resolving(lab), len(gateway.calls), len(gateway.questions))
    assert "ch_9" == lab.entry("u1", "p1")["gateway_ref"]


def test_row_absent_with_the_replay_mark_inside_the_window_stays_unknown(
    gateway: AskedGateway, lab: OneTask
) -> None:
    """Not found never means failed inside the window, and a repeat is pointless there."""
    gateway.script = [Ambiguous("server_error", ask_only=True)] * 99
    lab.send(payment(lab))
    calls, gateway.found = len(gateway.calls), [Absent()]
    for _ in range(5):
        try_again(lab)

    assert ("unknown", calls) == (lab.entry("u1", "p1")["status"], len(gateway.calls))


def unknown_past_the_window(lab: OneTask, gateway: AskedGateway) -> int:
    """A payment whose calls were all ambiguous, 19 hours later; returns the calls made."""
    gateway.script = LOST.copy()
    lab.send(payment(lab))
    gateway.script = []
    lab.wait(19 * HOUR_S)
    return len(gateway.calls)


def test_row_past_the_window_found_and_agreeing_is_adopted(gateway: AskedGateway, lab: OneTask) -> None:
    """Asked by our reference first; no call."""
    calls = unknown_past_the_window(lab, gateway)
    gateway.found = [FOUND]
    assert 1 == lab.look()

    assert ([("succeeded", None)], calls) == (resolving(lab), len(gateway.calls))
    query, call = gateway.questions[0], gateway.calls[0]
    assert (call[0], "charge", "u1", "p1", 500, "USD") == (
        query.idempotency_key, query.action, query.user_id, query.payment_id, query.amount_minor,
        query.currency,
    )  # fmt: skip
    assert lab.entry("u1", "p1")["first_seen_at"] == query.since_ms


@pytest.mark.parametrize(
    "other",
    [
        Found("ch_9", "succeeded", None, 501, "USD", "u1"),
        Found("ch_9", "succeeded", None, 500, "EUR", "u1"),
        Found("ch_9", "succeeded", None, 500, "USD", "u2"),
        Found("ch_9", "succeeded", None, 500, "USD", None),
    ],
    ids=["amount", "currency", "user", "no_user"],
)
def test_row_past_the_window_found_but_disagreeing_is_parked(
    gateway: AskedGateway, lab: OneTask, other: Answer
) -> None:
    """An answer counts only if user, amount and currency agree; else a person has to look."""
    calls = unknown_past_the_window(lab, gateway)
    gateway.found = [other]
    lab.look()

    entry = lab.entry("u1", "p1")
    assert ("parked", "found_disagrees", None) == (entry["status"], entry["reason"], entry["gateway_ref"])
    assert ([], calls) == (resolving(lab), len(gateway.calls))


def test_row_past_the_window_absent_twice_allows_one_call_that_starts_a_new_window(
    gateway: AskedGateway, lab: OneTask
) -> None:
    """Not found, again not found at least the consistency delay later; then the same key, once."""
    calls = unknown_past_the_window(lab, gateway)
    gateway.found = [Absent()]
    gateway.script = LOST.copy()
    lab.look()
    first = lab.entry("u1", "p1")
    assert (calls, 60_000) == (len(gateway.calls), first["next_try_at"] - first["absent_at"])
    try_again(lab)
    entry = lab.entry("u1", "p1")

    assert calls + 1 == len(gateway.calls)
    assert 1 == len({key for key, _ in gateway.calls})
    assert entry["processed_at"] == entry["window_from"] > first["window_from"]
    assert entry["absent_at"] is None
    questions, gateway.script = len(gateway.questions), []
    try_again(lab)
    assert [("succeeded", None)] == resolving(lab)
    assert questions == len(gateway.questions)  # inside the new window the repeat is the authority again


def test_row_absence_is_not_proven_within_the_consistency_delay(gateway: AskedGateway, lab: OneTask) -> None:
    """A re-sent event makes the second question come early: it proves nothing."""
    calls = unknown_past_the_window(lab, gateway)
    gateway.found = [Absent()]
    lab.look()
    for _ in range(3):
        lab.send(payment(lab))
        lab.wait(5)
        lab.look()

    assert (calls, 4) == (len(gateway.calls), len(gateway.questions))
    assert "unknown" == lab.entry("u1", "p1")["status"]


@pytest.mark.parametrize("answer", [NotSent("unreachable"), Ambiguous("timeout")], ids=["unsent", "lost"])
def test_row_past_the_window_without_an_answer_is_asked_again_then_parked(
    gateway: AskedGateway, lab: OneTask, answer: Answer
) -> None:
    """No answer is no proof: never a call; the schedule goes on to its end."""
    calls = unknown_past_the_window(lab, gateway)
    gateway.found = [answer]
    while is_open(lab):
        try_again(lab)

    assert ("parked", calls) == (lab.entry("u1", "p1")["status"], len(gateway.calls))
    assert [] == resolving(lab)


def test_row_found_pending_stays_unknown(gateway: AskedGateway, lab: OneTask) -> None:
    """The gateway has it but not its end yet."""
    unknown_past_the_window(lab, gateway)
    gateway.found = [Found("ch_9", "pending", None, 500, "USD", "u1"), FOUND]
    lab.look()
    entry = lab.entry("u1", "p1")
    assert ("unknown", "pending_at_gateway") == (entry["status"], entry["reason"])
    try_again(lab)

    assert [("succeeded", None)] == resolving(lab)


def test_row_invalid_after_doubt_is_parked(gateway: AskedGateway, lab: OneTask) -> None:
    """It speaks of this call alone; an earlier one may have charged."""
    gateway.script = LOST.copy()
    lab.send(payment(lab))
    gateway.script = [Invalid("parameter_invalid")]
    try_again(lab)

    assert ("parked", "invalid_after_doubt") == tuple(lab.entry("u1", "p1")[k] for k in ("status", "reason"))


def test_row_rate_limited_waits_as_long_as_the_gateway_wants(gateway: AskedGateway, lab: OneTask) -> None:
    """Retry-After moves the next try; neither the timer nor a re-sent event is quicker."""
    gateway.script = [NotSent("rate_limited", 100.0)] * 99
    (first,) = lab.send(payment(lab))
    lab.wait(50)
    lab.send(payment(lab))
    assert 0 == lab.look()
    entry = lab.entry("u1", "p1")
    assert first["processed_at"] + 100_000 == entry["not_before"] == entry["next_try_at"]
    gateway.script = []
    try_again(lab)

    assert [("succeeded", None)] == resolving(lab)


def test_row_not_sent_becomes_failed_only_after_the_time_to_give_up(
    gateway: AskedGateway, lab: OneTask
) -> None:
    """Every try proven unsent, the gateway asked twice: failed / gave_up; not a moment before."""
    gateway.script = UNSENT.copy()
    lab.send(payment(lab))
    while not resolving(lab):
        try_again(lab)

    assert [("failed", "gave_up")] == resolving(lab)
    age_ms = lab.entry("u1", "p1")["processed_at"] - lab.entry("u1", "p1")["first_seen_at"]
    assert age_ms > 86_400_000
    assert len(gateway.questions) >= 2


def test_row_not_sent_but_found_is_adopted_instead_of_given_up(gateway: AskedGateway, lab: OneTask) -> None:
    """A worker that was frozen may have called unseen: the gateway's word counts."""
    traits = Traits(key_safe_window_s=99 * DAY_S, consistency_delay_s=60)
    lab.gatekeeper.resilient["simulated"].traits = traits
    gateway.script = UNSENT.copy()
    lab.send(payment(lab))
    lab.wait(25 * HOUR_S)
    gateway.found = [FOUND]
    lab.look()

    assert [("succeeded", None)] == resolving(lab)


def test_row_not_sent_is_not_given_up_while_the_gateway_cannot_be_asked(
    gateway: AskedGateway, lab: OneTask
) -> None:
    """No answer, no end: it stays unknown, at last parked."""
    gateway.script, gateway.found = UNSENT.copy(), [NotSent("unreachable")]
    lab.send(payment(lab))
    while is_open(lab):
        try_again(lab)

    assert ("parked", []) == (lab.entry("u1", "p1")["status"], resolving(lab))


def test_a_try_before_its_time_uses_up_no_step(gateway: AskedGateway, lab: OneTask) -> None:
    """A caller who sends again and again gets tries, but cannot park its payment."""
    gateway.script = LOST.copy()
    lab.send(payment(lab))
    try_again(lab)
    before = lab.entry("u1", "p1")
    lab.wait(6)
    lab.send(payment(lab))
    assert 1 == lab.look()
    after = lab.entry("u1", "p1")

    assert before["attempts"] + 1 == after["attempts"]
    assert (1, before["due_at"], before["due_at"]) == (after["step"], after["due_at"], after["next_try_at"])


def test_a_gateway_that_is_not_called_at_all_uses_up_no_step(gateway: AskedGateway, lab: OneTask) -> None:
    """An open breaker or a stopped gateway is no try: it is as far in its schedule as before."""
    gateway.script = [NotSent("breaker_open", 20.0)] * 99
    lab.send(payment(lab))
    for _ in range(30):
        try_again(lab)
    entry = lab.entry("u1", "p1")

    assert ("unknown", 0) == (entry["status"], entry["step"])
    assert entry["processed_at"] + 20_000 == entry["next_try_at"]


def test_nothing_is_triggered_at_a_gateway_that_takes_no_calls(gateway: AskedGateway, lab: OneTask) -> None:
    """A long outage appends nothing; what became due meanwhile goes as soon as it is back."""
    gateway.script = UNSENT.copy()
    lab.send(payment(lab, "p1"), payment(lab, "p2"))
    permits: dict[str, float] = {"simulated": 0}
    lab.due = type(lab.due)(lab.layer, lab.triggers, permits.__getitem__)  # type: ignore[arg-type]
    lab.wait(HOUR_S)
    assert (0, []) == (lab.look(), lab.kafka.logs[RETRY, 0])
    permits["simulated"], gateway.script = 2, []

    assert 2 == lab.look()
    assert [("succeeded", None)] * 2 == resolving(lab)


def test_an_event_older_than_the_window_is_asked_for_before_it_is_called(
    gateway: AskedGateway, lab: OneTask
) -> None:
    """An earlier delivery may have called under a key that is forgotten now: unknown first, no call."""
    event = payment(lab)
    lab.wait(19 * HOUR_S)
    (result,) = lab.send(event, at_ms=lab.now_ms - 19 * HOUR_S * 1000)
    assert ("unknown", "key_window_passed", 0) == (result["status"], result["reason"], result["attempt"])
    gateway.found = [FOUND]
    try_again(lab)

    assert ([("succeeded", None)], []) == (resolving(lab), gateway.calls)


def test_a_trigger_redelivered_after_a_crash_never_leads_to_giving_up(
    gateway: AskedGateway, lab: OneTask
) -> None:
    """What the lost delivery did is not stored, so nothing proves that it was not sent."""
    gateway.script = UNSENT.copy()
    lab.send(payment(lab))
    lab.wait(25 * HOUR_S)
    lab.append(RETRY, b"u1", b'{"user_id":"u1","payment_id":"p1"}')
    lab.crash()
    gateway.found = [Absent()]
    lab.handle()
    while is_open(lab):
        try_again(lab)

    assert [] == [one for one in resolving(lab) if one[0] == "failed"]


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"gateway_account": "acct_other"}, "gateway_account_changed"),
        ({"gateway": "stripe"}, "gateway_not_configured"),
    ],
)
def test_an_open_payment_goes_to_no_other_account_or_gateway(
    gateway: AskedGateway,
    lab: OneTask,
    changed: dict[str, str],
    reason: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It waits, with an alarm, in its schedule: idempotency keys hold per account."""
    gateway.script = LOST.copy()
    lab.send(payment(lab))
    calls = len(gateway.calls)
    lab.put("payments", "u1/p1", lab.entry("u1", "p1") | changed)
    try_again(lab)
    entry = lab.entry("u1", "p1")

    assert ("unknown", reason, calls) == (entry["status"], entry["reason"], len(gateway.calls))
    assert " waits: " in caplog.text


def test_an_open_refund_is_repeated_as_a_refund(gateway: AskedGateway, lab: OneTask) -> None:
    """Of the same charge, under the refund's own key."""
    gateway.script = LOST.copy()
    lab.send(payment(lab))
    refund = lab.entry("u1", "p1") | {"action": "refund", "refund_of": "p0", "charge_ref": "ch_of_p0"}
    lab.put("payments", "u1/p1", refund)
    gateway.script = [Succeeded("re_1")]
    try_again(lab)
    request = gateway.requests[-1]

    assert isinstance(request, RefundRequest)
    assert ("ch_of_p0", 500, "USD") == (request.charge_ref, request.amount_minor, request.currency)
    assert request.idempotency_key != gateway.calls[0][0]
    assert "succeeded" == lab.entry("u1", "p1")["status"]


def test_a_trigger_for_a_payment_that_is_not_due_does_nothing(gateway: AskedGateway, lab: OneTask) -> None:
    """Lost, doubled, early, about nothing at all: only what the table says counts."""
    gateway.script = LOST.copy()
    lab.send(payment(lab, "p1"))
    gateway.script = []
    lab.send(payment(lab, "p2"))
    before, calls = [lab.entry("u1", one) for one in ("p1", "p2")], len(gateway.calls)
    for payment_id in ("p1", "p2", "p3"):
        lab.trigger("u1", payment_id)

    assert (before, calls) == ([lab.entry("u1", one) for one in ("p1", "p2")], len(gateway.calls))
    assert 2 == len(lab.results())


def test_nothing_sleeps_while_a_gateway_is_gone_for_ten_minutes(lab: OneTask, gateway: AskedGateway) -> None:
    """Every unit ends within the deadline; when the gateway is back, all that is due is settled at once."""
    gateway.script = UNSENT.copy()
    lab.send(*(payment(lab, f"p{n}", user_id=f"u{n}") for n in range(20)))
    for _ in range(60):
        lab.wait(10)
        lab.look()
        assert 0 == lab.task.waiting_units()
    gateway.script = []
    lab.wait(600)
    assert (1, 19) == (lab.look(), lab.look()), "the probe of the breaker, then all"

    assert [("succeeded", None)] * 20 == resolving(lab)
    assert 20 == len(gateway.charges)


def test_the_release_before_is_understood(gateway: AskedGateway, lab: OneTask) -> None:
    """Its open payments, entries and rows alike, go on where they were."""
    gateway.script = LOST.copy()
    lab.send(payment(lab))
    gateway.script = []
    added = (
        "reserved_minor charge_ref conflicts_with origin soft ask_only window_from absent_at step due_at"
        " not_before held_since settled_by"
    ).split()
    old = {name: value for name, value in lab.entry("u1", "p1").items() if name not in added}
    lab.put("payments", "u1/p1", old)
    lab.put("open_payments", "u1/p1", {"next_try_at": old["next_try_at"]})
    try_again(lab)

    assert [("succeeded", None)] == resolving(lab)
    assert set(added) <= lab.entry("u1", "p1").keys()


def test_an_entry_says_only_what_is_worth_saying(lab: OneTask) -> None:
    """What has its default is not written, or each charge would cost a quarter more on the changelog."""
    lab.send(payment(lab))

    assert {"step", "held_since", "settled_by", "absent_at", "window_from"}.isdisjoint(
        lab.row("payments", "u1/p1")
    )
    assert lab.entry("u1", "p1")["first_seen_at"] == lab.entry("u1", "p1")["window_from"]


def test_the_time_to_give_up_is_a_setting(gateway: AskedGateway) -> None:
    """BILLING_GIVE_UP_AFTER_S."""
    with OneTask(gateway, settings=Settings(partitions=1, give_up_after_s=60)) as lab:
        gateway.script, gateway.found = UNSENT.copy(), [Absent()]
        lab.send(payment(lab))
        for _ in range(5):
            if not resolving(lab):
                try_again(lab)

        assert [("failed", "gave_up")] == resolving(lab)


@pytest.mark.parametrize("past_the_window", [False, True])
def test_who_was_not_let_through_has_made_no_try_and_does_not_give_up(
    gateway: AskedGateway, past_the_window: bool
) -> None:
    """Old enough, absent each time: without a call it neither fails nor begins a new window."""
    if past_the_window:
        gateway.traits = Traits(key_safe_window_s=30, consistency_delay_s=1)
    with OneTask(gateway, settings=Settings(partitions=1, give_up_after_s=60)) as lab:
        gateway.script, gateway.found = [NotSent("breaker_open")] * 99, [Absent()]
        lab.send(payment(lab))
        began = lab.entry("u1", "p1")["window_from"]
        for _ in range(20):
            lab.wait(10)
            lab.look()
        assert ([], began) == (resolving(lab), lab.entry("u1", "p1")["window_from"])
        gateway.script = []
        lab.wait(10)
        lab.look()
        assert [("succeeded", None)] == resolving(lab)
