"""The breaks of what both legs have, and of which they say different things."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping
from typing import Any, Final

from streamsocial_billing.domain.money import format_minor
from streamsocial_billing.domain.statuses import OPEN
from streamsocial_billing.reconciliation.breaks import TIMING, Break, exponent_suspect
from streamsocial_billing.reconciliation.repairing import (
    dispute_events,
    moved_there,
    repaired_by,
    repairs_of,
)
from streamsocial_billing.reconciliation.rules import Rules, repair_event

Row = Mapping[str, Any]

_PAIRS: Final = """
SELECT a.fold, a.user_id AS a_user, a.payment_id AS a_payment, a.action, a.status AS a_status,
    a.amount AS ours, a.currency AS a_currency, a.at, a.moved, a.refund_of, a.returned AS a_returned, b.*
FROM a JOIN b ON b.id = a.b
WHERE {which} ORDER BY a.fold"""
_DIFFER: Final = (
    "(a.currency <> b.currency OR (a.amount <> b.amount AND b.kind <> 'dispute'))"
    " AND (a.moved > 0 OR b.status = 'succeeded')"
)
_CONTRADICT: Final = """(a.amount = b.amount OR b.kind = 'dispute') AND a.currency = b.currency AND NOT (
    (a.moved > 0 AND b.status = 'succeeded' AND a.amount = b.amount AND a.returned = b.returned)
    OR (a.moved = 0 AND a.status NOT IN ('unknown', 'parked') AND b.status <> 'succeeded')
    OR (b.status <> 'succeeded' AND a.fold IN (SELECT payment FROM waiting)))"""
_OTHER_CHARGE: Final = """
SELECT a.fold, a.user_id AS a_user, a.payment_id AS a_payment, a.at, c.gateway_ref AS wanted, b.*
FROM a JOIN b ON b.id = a.b JOIN a AS c ON c.fold = a.user_id || '/' || a.refund_of
WHERE a.action = 'refund' AND b.kind = 'refund' AND a.moved > 0 AND b.status = 'succeeded'
    AND b.charge_ref IS NOT NULL AND c.gateway_ref IS NOT NULL AND c.gateway_ref <> b.charge_ref
ORDER BY a.fold"""


def amounts(db: sqlite3.Connection) -> Iterator[Break]:
    """Another amount, or another currency."""
    for row in db.execute(_PAIRS.format(which=_DIFFER)):
        same = row["a_currency"] == row["currency"]
        ours, theirs = row["ours"], row["amount"]
        suspect = exponent_suspect(ours, theirs)
        yield Break(
            class_="refund_mismatch" if row["kind"] == "refund" else "amount_mismatch",
            legs=(row["gateway"], row["fold"], row["gateway_ref"]), gateway=row["gateway"], kind=row["kind"],
            currency=row["a_currency"], at_stake=abs(ours - theirs) if same else ours,
            since=min(row["at"], row["created"]), ours=ours, theirs=theirs, user_id=row["a_user"],
            payment_id=row["a_payment"], gateway_ref=row["gateway_ref"],
            tags=("exponent_suspect",) if suspect else (),
            detail=f"our books: {format_minor(ours, row['a_currency'])}, "
            f"the gateway: {format_minor(theirs, row['currency'])}",
            action="by hand: find out which one the customer agreed to; correct by a refund or a new payment",
        )  # fmt: skip


def statuses(db: sqlite3.Connection, rules: Rules) -> Iterator[Break]:
    """Another outcome; what is open here or there may be under way."""
    for row in db.execute(_PAIRS.format(which=_CONTRADICT)):
        is_open = row["a_status"] in OPEN
        if is_open and row["status"] == "pending":
            if row["at"] <= rules.as_of - rules.unknown_after:
                yield _status_break(rules, row, "unknown_aged", "wait for the gateway, or `resolve` by hand")
            continue
        if rules.young(max(row["at"], row["created"]), row["gateway"]):
            yield _status_break(rules, row, TIMING, "nothing: under way")
        elif is_open and row["status"] == "succeeded":
            yield _status_break(rules, row, "missing_internal", "by hand: `resolve` with the gateway_ref")
        elif row["kind"] == "dispute":
            yield _dispute_break(rules, row)
        else:
            yield _status_break(rules, row, "status_mismatch", _what_to_do(row))


def _what_to_do(row: Row) -> str:
    if row["a_status"] in OPEN:
        if row["intent_charge"] is not None:
            return "wait for the next try, which asks for the intent"
        return "by hand: `resolve` as declined"
    if row["status"] == "succeeded":
        amount = format_minor(row["amount"], row["currency"])
        return f"proposed: refund {amount} of {row['gateway_ref']}; final outcomes never change by themselves"
    return "by hand: ask the gateway; a final outcome never changes by itself"


def _dispute_break(rules: Rules, row: Row) -> Break:
    """What a dispute took and gave back is not what our books say; both are counted in all so far."""
    ours, theirs = (row["ours"], row["a_returned"]), moved_there(row)
    taken, back = theirs[0] > ours[0], theirs[1] > ours[1]
    legs: tuple[str, ...] = (row["gateway"], row["fold"], row["gateway_ref"])
    if theirs[1] < theirs[0]:
        legs = (*legs, *map(str, theirs))
    events = []
    if (taken or back) and not (theirs[0] < ours[0] or theirs[1] < ours[1]):
        events = dispute_events(
            rules=rules, class_="dispute_unbooked", legs=legs, row=row, user=row["a_user"],
            charge=row["refund_of"], taken=theirs[0] if taken else 0, back=theirs[1] if back else 0,
        )  # fmt: skip
    shown = [format_minor(amount, row["currency"]) for amount in (*ours, *theirs)]
    at_stake = abs(ours[0] - ours[1] - theirs[0] + theirs[1]) or abs(ours[0] - theirs[0])
    return _status_body(
        row=row,
        class_="dispute_unbooked",
        legs=legs,
        at_stake=at_stake,
        detail=f"our books: {shown[0]} taken, {shown[1]} back; "
                f"the gateway: {shown[2]} taken, {shown[3]} back",
        action=repaired_by("dispute_unbooked", legs) if events
        else "by hand: our books say that more moved than the gateway says",
        events=events,
    )  # fmt: skip


def _status_break(rules: Rules, row: Row, class_: str, by_hand: str) -> Break:
    legs = (row["gateway"], row["gateway_ref"]) if class_ == "missing_internal" else (
        row["gateway"], row["fold"], row["gateway_ref"])  # fmt: skip
    event = None
    by_intent = row["kind"] == "charge" and row["intent_charge"] is not None
    open_here = row["a_status"] in OPEN and row["status"] != "pending"
    if by_intent:  # a failed charge is not its intent's end; one that succeeded after our decline is money
        open_here = row["status"] == "succeeded"
    failed = row["kind"] == "refund" and row["a_status"] == "succeeded" and row["status"] == "failed"
    if class_ != TIMING and (open_here or failed):
        status = "succeeded" if row["status"] == "succeeded" else "declined"
        event = repair_event(
            rules, class_, legs, row, status=status, user_id=row["a_user"],
            payment_id=None if row["ref"] is None else row["a_payment"], charge_id=row["refund_of"],
        )  # fmt: skip
    return _status_body(
        row=row, class_=class_, legs=legs, at_stake=row["amount"],
        detail=f"our books: {row['a_status']}, the gateway: {row['status']}",
        action=repaired_by(class_, legs) if event else by_hand, events=[] if event is None else [event],
    )  # fmt: skip


def _status_body(
    row: Row, class_: str, legs: tuple[str, ...], at_stake: int, detail: str, action: str,
    events: list[dict[str, Any]],
) -> Break:  # fmt: skip
    return Break(
        class_=class_, legs=legs, gateway=row["gateway"], kind=row["kind"], currency=row["currency"],
        at_stake=at_stake, since=min(row["at"], row["created"]), ours=row["ours"] if row["moved"] else None,
        theirs=row["amount"] if row["status"] == "succeeded" else None, user_id=row["a_user"],
        payment_id=row["a_payment"], gateway_ref=row["gateway_ref"], detail=detail, action=action,
        **repairs_of(events),
    )  # fmt: skip


def refunds_of_other_charges(db: sqlite3.Connection) -> Iterator[Break]:
    """The same refund, of another charge."""
    for row in db.execute(_OTHER_CHARGE):
        yield Break(
            class_="refund_mismatch", legs=(row["gateway"], row["fold"], row["gateway_ref"]),
            gateway=row["gateway"], kind="refund", currency=row["currency"], at_stake=row["amount"],
            since=min(row["at"], row["created"]), ours=row["amount"], theirs=row["amount"],
            user_id=row["a_user"], payment_id=row["a_payment"], gateway_ref=row["gateway_ref"],
            detail=f"our books: a refund of {row['wanted']}, the gateway: of {row['charge_ref']}",
            action="by hand: see whose money went back",
        )  # fmt: skip
