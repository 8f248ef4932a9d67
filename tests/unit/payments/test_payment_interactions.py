"""Payments, refunds, messages, people, gateways that stand still: several of them at once, in virtual time.

After each test the live audit has to find nothing.
"""

from collections.abc import Iterator

import pytest
from support.asked_gateway import HOUR_S, AskedGateway
from support.audited import breaks
from support.gateway_said import foreign, ours, say
from support.one_task import OneTask
from support.orders import resolve, switch
from support.subscribed import OURS, days, refs, sub, subscribe
from support.wishes import charge, refund

from streamsocial_billing.domain.decision import DEDUP_RETENTION_MS
from streamsocial_billing.domain.gateway_calls import Absent, Ambiguous, Found, KeyMismatch, Outcome
from streamsocial_billing.payments.waiting_refunds import CHARGE_MAY_COME_MS

LOST: list[Outcome | Exception] = [Ambiguous("reset", ask_only=True)] * 99


class Asked(AskedGateway):
    """Knows its account only once it was started; `forget` is a new process."""

    async def start(self) -> None:
        """Ask whose the key is."""
        self.account = self.account or "acct_scripted"

    def forget(self) -> None:
        """Before the first start."""
        self.account = ""


@pytest.fixture
def gateway() -> Asked:
    return Asked()


@pytest.fixture
def lab(gateway: Asked) -> Iterator[OneTask]:
    with OneTask(gateway) as lab:
        yield lab
        assert [] == breaks(lab)


def went_back(lab: OneTask, charge: str = "c1") -> tuple[int, int]:
    """What the charge's entry says: refunded, reserved."""
    entry = lab.entry("u1", charge)
    return entry["refunded_minor"], entry["reserved_minor"]


def final(lab: OneTask, payment_id: str) -> list[tuple[str, str | None]]:
    """The settling records of a payment."""
    settled = [one for one in lab.results() if one["resolves"] and one["payment_id"] == payment_id]
    return [(one["status"], one["reason"]) for one in settled]


# ---- what a refund may take


@pytest.mark.parametrize("small", [False, True])
def test_a_won_dispute_gives_no_room_back_that_an_open_refund_took_meanwhile(
    lab: OneTask, gateway: Asked, small: bool
) -> None:
    """Both took the whole charge; what comes back with the dispute is gone with the refund."""
    lab.send(charge(lab))
    if small:
        lab.wait(DEDUP_RETENTION_MS / 1000 + HOUR_S)
        lab.look()
    gateway.script = LOST.copy()
    lab.send(refund(lab, "r1", 500))
    say(lab, foreign("dispute", "succeeded", "dp_1"))
    say(lab, ours("refund", "succeeded", "r1", "re_9"))
    gateway.script = []
    say(lab, foreign("dispute", "declined", "dp_1"))
    (late,) = lab.send(refund(lab, "r2", 500))

    assert ("rejected", "refund_exceeds_charge") == (late["status"], late["reason"])
    assert (500, 0) == went_back(lab)


def test_a_won_dispute_gives_no_room_back_that_a_refund_at_the_gateway_took_meanwhile(lab: OneTask) -> None:
    """The same of a refund that somebody made in the gateway's dashboard."""
    lab.send(charge(lab))
    say(lab, foreign("dispute", "succeeded", "dp_1"))
    say(lab, foreign("refund", "succeeded", "re_x", amount_minor=200))
    say(lab, foreign("dispute", "declined", "dp_1"))
    (late,) = lab.send(refund(lab, "r2", 301))

    assert ("rejected", "refund_exceeds_charge", (200, 0)) == (
        late["status"], late["reason"], went_back(lab),
    )  # fmt: skip


def test_a_refund_without_a_reservation_is_never_called_whatever_else_it_waited_for(
    lab: OneTask, gateway: Asked
) -> None:
    """An account that was another one for a while gives it no room."""
    lab.send(charge(lab))
    lab.append("payments", b"u1", refund(lab, "r1", 300).to_bytes())
    gateway.script = LOST.copy()
    lab.deliver()
    lab.crash()
    lab.put("payments", "u1/c1", lab.entry("u1", "c1") | {"refunded_minor": 300})
    lab.handle()
    gateway.script, gateway.found, calls = [], [Absent()], len(gateway.calls)
    gateway.account = "acct_new"
    lab.wait(5)
    lab.trigger("u1", "r1")
    assert "gateway_account_changed" == lab.entry("u1", "r1")["reason"]
    gateway.account = "acct_scripted"
    for _ in range(4):
        lab.wait(20 * HOUR_S)
        lab.look()

    assert (calls, (300, 0)) == (len(gateway.calls), went_back(lab))
    assert [("rejected", "refund_exceeds_charge")] == final(lab, "r1")


def test_a_refund_that_is_sent_again_in_each_of_its_states_is_made_once(
    lab: OneTask, gateway: Asked
) -> None:
    """Before its charge, held, released, called."""
    event = refund(lab)
    lab.send(event, event)
    lab.send(charge(lab), event)
    lab.send(event)
    lab.look()
    lab.send(event)

    assert ((200, 0), 1, 1) == (went_back(lab), len(gateway.refunds), len(final(lab, "r1")))


def test_a_refund_of_itself_is_a_refund_of_an_unknown_charge(lab: OneTask) -> None:
    """It waits as any does whose charge is not there."""
    lab.send(refund(lab, "c1"))
    lab.wait(CHARGE_MAY_COME_MS / 1000)
    lab.look()

    assert [("rejected", "unknown_charge")] == final(lab, "c1")
    assert None is lab.row("awaited_charges", "u1/c1")


# ---- gateways that are not called


def test_a_refund_at_a_gateway_whose_account_is_not_known_yet_waits_like_any(
    lab: OneTask, gateway: Asked
) -> None:
    """That is no other account, so no person may settle it: it is called once the gateway is started."""
    lab.send(charge(lab))
    switch(lab, stop=True)
    gateway.forget()
    (result,) = lab.send(refund(lab))
    answer = resolve(lab, "failed", payment_id="r1")
    switch(lab, stop=False)
    lab.wait(6)
    lab.look()

    assert ("unknown", "gateway_unavailable") == (result["status"], result["reason"])
    assert "refused" == answer["outcome"]
    assert ([("succeeded", None)], (200, 0)) == (final(lab, "r1"), went_back(lab))


def test_a_payment_parked_before_its_account_was_known_is_settled_by_the_gateways_word(
    lab: OneTask, gateway: Asked
) -> None:
    """Nobody was called for it, so the account that there is now is asked; it can be refunded, too."""
    gateway.forget()
    switch(lab, stop=True)
    lab.send(charge(lab))
    say(lab, ours("charge", "succeeded", "c1", "ch_9", amount_minor=499))
    before = lab.entry("u1", "c1")
    gateway.found = [Found("ch_8", "succeeded", None, 500, "USD", "u1", "c1")]
    answer = resolve(lab, "succeeded", "ch_8", payment_id="c1")
    switch(lab, stop=False)
    lab.send(refund(lab))

    assert ("parked", "") == (before["status"], before["gateway_account"])
    assert ("done", "acct_scripted") == (answer["outcome"], lab.entry("u1", "c1")["gateway_account"])
    assert (200, 0) == went_back(lab)


def test_a_held_refund_that_a_message_parked_is_settled_by_the_gateways_word(
    lab: OneTask, gateway: Asked
) -> None:
    """It has no account yet, its charge no end; that comes later, nothing waits for it then."""
    gateway.script = LOST.copy()
    lab.send(charge(lab), refund(lab))
    say(lab, ours("refund", "succeeded", "r1", "re_9", amount_minor=199))
    parked = lab.entry("u1", "r1")
    gateway.found = [Found("re_8", "succeeded", None, 200, "USD", "u1")]
    answer = resolve(lab, "succeeded", "re_8", payment_id="r1")
    say(lab, ours("charge", "succeeded", "c1", "ch_9"))

    assert ("parked", "done") == (parked["status"], answer["outcome"])
    assert (200, 0) == went_back(lab)
    assert None is lab.row("awaited_charges", "u1/c1")


def test_what_waits_through_a_stop_of_days_is_called_once(lab: OneTask, gateway: Asked) -> None:
    """A charge in doubt, its refunds: past the window of their keys they are asked for, then called."""
    gateway.script = LOST.copy()
    lab.send(charge(lab))
    gateway.script = []
    switch(lab, stop=True)
    lab.send(refund(lab), refund(lab, "r2", 100))
    for _ in range(4):
        lab.wait(24 * HOUR_S)
        assert 0 == lab.look()
    switch(lab, stop=False)
    for _ in range(8):
        lab.wait(100)
        lab.look()

    assert ((300, 0), 1, 2) == (went_back(lab), len(gateway.charges), len(gateway.refunds))


def test_a_refund_adopted_during_a_stop_is_settled_by_the_gateways_message(
    lab: OneTask, gateway: Asked
) -> None:
    """It holds its part of the charge until then."""
    lab.send(charge(lab))
    say(lab, ours("refund", "pending", "r1", "re_9", amount_minor=200))
    switch(lab, stop=True)
    lab.send(refund(lab))
    held = went_back(lab)
    say(lab, ours("refund", "succeeded", "r1", "re_9", amount_minor=200))

    assert ((0, 200), (200, 0), {}) == (held, went_back(lab), gateway.refunds)


# ---- people


@pytest.mark.parametrize(
    ("status", "refunds"),
    [
        ("succeeded", [("succeeded", None), ("succeeded", None), ("rejected", "refund_exceeds_charge")]),
        ("declined", [("rejected", "nothing_to_refund")] * 3),
        ("failed", [("rejected", "nothing_to_refund")] * 3),
    ],
)
def test_resolving_a_charge_settles_what_waits_for_it(
    lab: OneTask, gateway: Asked, status: str, refunds: list[tuple[str, str | None]]
) -> None:
    """Held refunds go on, share what a refund at the gateway left."""
    gateway.script = [KeyMismatch("idempotency_error")]
    lab.send(charge(lab), *(refund(lab, name) for name in ("r1", "r2", "r3")))
    say(lab, foreign("refund", "succeeded", "re_x", amount_minor=100))
    gateway.found = [Absent()]
    if status == "succeeded":
        gateway.found = [Found("ch_9", "succeeded", None, 500, "USD", "u1")]
    answer = resolve(lab, status, "ch_9", payment_id="c1")
    gateway.found = []
    lab.look()

    assert "done" == answer["outcome"]
    assert refunds == [one for name in ("r1", "r2", "r3") for one in final(lab, name)]
    assert None is lab.row("awaited_charges", "u1/c1")


# ---- subscriptions


def test_a_subscriptions_payment_that_a_person_failed_is_tried_again_under_another_id(
    lab: OneTask, gateway: Asked
) -> None:
    """What is told of the failed one later contradicts, it pays for no other period."""
    gateway.script = [KeyMismatch("idempotency_error")]
    subscribe(lab)
    parked = sub(lab)["pending"]
    gateway.found = [Absent()]
    resolve(lab, "failed", payment_id=OURS)
    gateway.found = []
    days(lab, 2)
    say(lab, ours("charge", "succeeded", OURS, "ch_9", amount_minor=999))
    days(lab, 31)

    assert parked is not None and "parked" == parked["status"]
    assert ["sub:42:2025-12", "sub:42:2026-01"] == refs(lab)


@pytest.mark.parametrize(
    ("status", "paid", "state"),
    [("succeeded", ["sub:42:2025-12"], "active"), ("declined", [], "unpaid")],
)
def test_a_message_settles_a_subscriptions_payment_that_waits_for_its_gateway(
    lab: OneTask, gateway: Asked, status: str, paid: list[str], state: str
) -> None:
    """It is not called when the gateway is started again."""
    switch(lab, stop=True)
    subscribe(lab)
    say(lab, ours("charge", status, OURS, "ch_9", amount_minor=999))
    switch(lab, stop=False)
    days(lab, 3)

    assert (paid, state, []) == (refs(lab), sub(lab)["state"], gateway.calls)


def test_a_stop_over_periods_bills_each_of_them_once(lab: OneTask, gateway: Asked) -> None:
    """None is skipped, they follow each other when the gateway is started."""
    switch(lab, stop=True)
    subscribe(lab)
    days(lab, 70)
    switch(lab, stop=False)
    days(lab, 6, looks=3)

    assert ["sub:42:2025-12", "sub:42:2026-01", "sub:42:2026-02"] == refs(lab)
    assert 3 == len(gateway.charges)
