"""Finds the breaks between our books and the gateways' lists."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping
from typing import Any, Final

from streamsocial_billing.domain.money import format_minor
from streamsocial_billing.domain.statuses import OPEN
from streamsocial_billing.reconciliation.breaks import TIMING, Break, exponent_suspect
from streamsocial_billing.reconciliation.matching import PROPOSE_MOST, proposals
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
    OR (a.moved = 0 AND a.status NOT IN ('unknown', 'parked') AND b.status <> 'succeeded'))"""
_OTHER_CHARGE: Final = """
SELECT a.fold, a.user_id AS a_user, a.payment_id AS a_payment, a.at, c.gateway_ref AS wanted, b.*
FROM a JOIN b ON b.id = a.b JOIN a AS c ON c.fold = a.user_id || '/' || a.refund_of
WHERE a.action = 'refund' AND b.kind = 'refund' AND a.moved > 0 AND b.status = 'succeeded'
    AND b.charge_ref IS NOT NULL AND c.gateway_ref IS NOT NULL AND c.gateway_ref <> b.charge_ref
ORDER BY a.fold"""
_ALONE: Final = "SELECT * FROM a WHERE b IS NULL AND twin IS NULL AND {which} ORDER BY fold"
_TWICE: Final = """
SELECT a.*, w.fold AS winner FROM a LEFT JOIN a AS w ON w.id = a.twin
WHERE (a.moved > 1 OR (a.twin IS NOT NULL AND a.moved > 0)) ORDER BY a.fold"""
_UNKNOWN_TO_US: Final = """
SELECT b.*,
    row_number() OVER (PARTITION BY b.gateway, b.ref, b.kind ORDER BY b.created, b.gateway_ref) AS nth,
    EXISTS (SELECT 1 FROM a WHERE a.ref = b.ref AND a.gateway = b.gateway AND a.b IS NOT NULL) AS taken,
    o.payment IS NOT NULL AS observed, t.gateway IS NOT NULL AS told,
    coalesce((SELECT min(c.fold) FROM a AS c WHERE c.gateway = b.gateway AND c.gateway_ref = b.charge_ref
        AND c.action = 'charge'), (SELECT min(c.fold) FROM a AS c WHERE c.gateway = b.gateway
        AND c.ref = b.charge_key AND c.action = 'charge')) AS charge_fold
FROM b LEFT JOIN observed o
    ON o.gateway = b.gateway AND o.gateway_ref = b.gateway_ref AND o.seen = 'succeeded'
LEFT JOIN told t ON t.gateway = b.gateway AND t.gateway_ref = b.gateway_ref
WHERE b.a IS NULL AND b.status = 'succeeded' AND b.ours AND b.kind <> 'dispute_won'
ORDER BY b.gateway, b.created, b.gateway_ref"""
# the dispute that it ends is older than the list: our books alone can have it
_WON_ALONE: Final = """
SELECT b.*, (SELECT min(c.fold) FROM a AS c WHERE c.gateway = b.gateway AND c.gateway_ref = b.charge_ref
    AND c.action = 'charge') AS charge_fold
FROM rare JOIN b ON b.id = rare.id
WHERE rare.kind = 'dispute_won' AND b.dispute IS NULL AND b.ours AND b.status = 'succeeded'
    AND NOT EXISTS (SELECT 1 FROM a AS d WHERE d.gateway = b.gateway AND d.action = 'dispute'
        AND d.currency = b.currency AND d.returned >= b.amount
        AND (d.gateway_ref = b.charge_ref OR d.user_id || '/' || d.refund_of = (SELECT min(c.fold) FROM a AS c
            WHERE c.gateway = b.gateway AND c.gateway_ref = b.charge_ref AND c.action = 'charge')))
ORDER BY b.gateway, b.created, b.gateway_ref"""
_LATE_OBSERVED: Final = """
SELECT * FROM observed o WHERE at <= ? AND seen <> 'declined'
    AND NOT EXISTS (SELECT 1 FROM a WHERE a.fold = o.payment)
ORDER BY payment"""


def between_books_and_lists(db: sqlite3.Connection, rules: Rules) -> Iterator[Break]:
    """Every break of the two legs, those under way among them."""
    db.row_factory = sqlite3.Row
    yield from _amounts(db)
    yield from _statuses(db, rules)
    yield from _refunds_of_other_charges(db)
    yield from _missing_external(db, rules)
    yield from _unknown_aged(db, rules)
    yield from _duplicate_internal(db)
    yield from _unknown_to_us(db, rules)
    yield from _observed_aged(db, rules)


def _amounts(db: sqlite3.Connection) -> Iterator[Break]:
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


def _statuses(db: sqlite3.Connection, rules: Rules) -> Iterator[Break]:
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
    open_here = row["a_status"] in OPEN and row["status"] != "pending"
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


def _refunds_of_other_charges(db: sqlite3.Connection) -> Iterator[Break]:
    for row in db.execute(_OTHER_CHARGE):
        yield Break(
            class_="refund_mismatch", legs=(row["gateway"], row["fold"], row["gateway_ref"]),
            gateway=row["gateway"], kind="refund", currency=row["currency"], at_stake=row["amount"],
            since=min(row["at"], row["created"]), ours=row["amount"], theirs=row["amount"],
            user_id=row["a_user"], payment_id=row["a_payment"], gateway_ref=row["gateway_ref"],
            detail=f"our books: a refund of {row['wanted']}, the gateway: of {row['charge_ref']}",
            action="by hand: see whose money went back",
        )  # fmt: skip


def _missing_external(db: sqlite3.Connection, rules: Rules) -> Iterator[Break]:
    """What the gateway has not; asked about by the caller before it counts."""
    for row in db.execute(_ALONE.format(which="moved > 0")):
        young = rules.young(row["at"], row["gateway"])
        since = rules.listed_since(row["gateway"])
        if since and row["at"] < since + rules.window:
            continue
        near = () if young else _near(db, rules, row)
        yield Break(
            class_=TIMING if young else "missing_external", legs=(row["gateway"], row["fold"]),
            gateway=row["gateway"], kind=row["action"], currency=row["currency"], at_stake=row["amount"],
            since=row["at"], ours=row["amount"], user_id=row["user_id"], payment_id=row["payment_id"],
            gateway_ref=row["gateway_ref"], tags=("tie",) if len(near) > 1 else (),
            detail="in our books, not in the gateway's list" + _near_text(near),
            action="nothing: under way" if young else "by hand: ask the gateway's support with the reference",
        )  # fmt: skip


def _near(db: sqlite3.Connection, rules: Rules, row: Row) -> list[str]:
    return proposals(
        db=db, gateway=row["gateway"], kind=row["action"], amount=row["amount"], currency=row["currency"],
        at_ms=row["at"], window_ms=rules.window,
    )  # fmt: skip


def _near_text(near: list[str] | tuple[()]) -> str:
    if not near:
        return ""
    more = " and more" if len(near) > PROPOSE_MOST else ""
    shown = ", ".join(near[:PROPOSE_MOST])
    one = "could be" if len(near) == 1 else "several could be:"
    return f"; same amount at the same time, {one} {shown}{more} (a proposal, nothing is matched by it)"


def _unknown_aged(db: sqlite3.Connection, rules: Rules) -> Iterator[Break]:
    late = f"status IN ('unknown', 'parked') AND at <= {rules.as_of - rules.unknown_after:d}"
    for row in db.execute(_ALONE.format(which=late)):
        yield Break(
            class_="unknown_aged", legs=(row["gateway"], row["fold"]), gateway=row["gateway"],
            kind=row["action"], currency=row["currency"], at_stake=row["amount"], since=row["at"],
            user_id=row["user_id"], payment_id=row["payment_id"], gateway_ref=row["gateway_ref"],
            detail=f"{row['status']} ({row['reason']}), and the gateway's list has nothing",
            action="wait for the next try" if row["status"] == "unknown" else "by hand: `resolve`",
        )  # fmt: skip


def _duplicate_internal(db: sqlite3.Connection) -> Iterator[Break]:
    for row in db.execute(_TWICE):
        twin = row["winner"]
        times = row["moved"] if twin is None else 1
        why = f"{times} results say that money moved"
        if twin is not None:
            why = f"{row['gateway_ref']} is also {twin}'s"
        yield Break(
            class_="duplicate_internal", legs=(row["gateway"], row["fold"], twin or ""),
            gateway=row["gateway"], kind=row["action"], currency=row["currency"],
            at_stake=row["amount"] * (times if twin else times - 1), since=row["at"],
            ours=row["amount"] * times, theirs=None if twin else row["amount"], user_id=row["user_id"],
            payment_id=row["payment_id"], gateway_ref=row["gateway_ref"], detail=why,
            action="by hand: a defect of ours; keep the topics, tell the developers",
        )  # fmt: skip


def _unknown_to_us(db: sqlite3.Connection, rules: Rules) -> Iterator[Break]:
    """Movements that no row of our books has; those of others, which carry no reference of ours, are none."""
    for row in db.execute(_UNKNOWN_TO_US):
        if row["observed"]:
            continue
        if row["ref"] is not None:
            yield _ours_unknown_to_us(rules, row)
        else:
            yield _made_at_the_gateway(rules, row)
    for row in db.execute(_WON_ALONE):
        user, _, charge = (row["charge_fold"] or "").partition("/")
        yield _of_movement(
            row=row, class_="dispute_unbooked", user=user or None, payment=charge or None,
            detail=f"gives back a dispute, {row['charge_ref']}, that the list does not have",
            action="by hand: run again with a list that begins before the dispute (--since)",
        )  # fmt: skip


def _ours_unknown_to_us(rules: Rules, row: Row) -> Break:
    user, payment = row["user_id"], row["payment_id"]
    if row["taken"] or row["nth"] > 1:
        amount = format_minor(row["amount"], row["currency"])
        return _of_movement(
            row=row, class_="duplicate_external", user=user, payment=payment,
            detail=f"our reference {row['ref']} is also another one's",
            action=f"proposed: refund {amount} of {row['gateway_ref']}; nothing is refunded by itself",
        )  # fmt: skip
    if row["created"] >= rules.told_by(user) or row["told"]:
        return _of_movement(
            row=row, class_=TIMING, user=user, payment=payment, detail="its event is not handled yet",
            action="nothing: under way",
        )  # fmt: skip
    legs = (row["gateway"], row["gateway_ref"])
    event = repair_event(
        rules, "missing_internal", legs, row, status="succeeded", user_id=user, payment_id=payment,
        charge_id=_payment_of(row["charge_fold"]),
    )  # fmt: skip
    return _of_movement(
        row=row,
        class_="missing_internal",
        user=user,
        payment=payment,
        detail="the gateway has it under our reference, our books have nothing",
        action=repaired_by("missing_internal", legs) if event
        else "by hand: the reference does not belong to the user and payment it names",
        events=[] if event is None else [event],
    )  # fmt: skip


def _made_at_the_gateway(rules: Rules, row: Row) -> Break:
    """A refund or dispute of a charge of ours that was made at the gateway."""
    user, charge = row["user_id"], row["payment_id"]  # by the charge's words that the gateway copied
    if row["charge_fold"] is not None:
        user, _, charge = row["charge_fold"].partition("/")
    young = rules.young(row["created"], row["gateway"]) or row["created"] >= rules.told_by(user)
    if young or row["told"]:
        return _of_movement(
            row=row, class_=TIMING, user=user, payment=charge, detail="its webhook is not handled yet",
            action="nothing: under way",
        )  # fmt: skip
    dispute = row["kind"] == "dispute"
    class_ = "dispute_unbooked" if dispute else "refund_mismatch"
    legs = (row["gateway"], row["gateway_ref"])
    if dispute:
        events = dispute_events(
            rules=rules, class_=class_, legs=legs, row=row, user=user, charge=charge, taken=row["amount"],
            back=row["returned"],
        )  # fmt: skip
    else:
        event = repair_event(
            rules, class_, legs, dict(row) | {"ref": None}, status="succeeded", user_id=user, payment_id=None,
            charge_id=charge,
        )  # fmt: skip
        events = [] if event is None else [event]
    return _of_movement(
        row=row, class_=class_, user=user, payment=charge,
        detail=f"made at the gateway, of charge {row['charge_ref']}",
        action=repaired_by(class_, legs) if events else "by hand: the charge is not in our books either",
        events=events,
    )  # fmt: skip


def _payment_of(fold: str | None) -> str | None:
    return None if fold is None else fold.partition("/")[2]


def _of_movement(
    row: Row, class_: str, user: str | None, payment: str | None, detail: str, action: str,
    events: list[dict[str, Any]] | None = None,
) -> Break:  # fmt: skip
    gone = row["amount"] - row["returned"]
    return Break(
        class_=class_, legs=(row["gateway"], row["gateway_ref"]), gateway=row["gateway"], kind=row["kind"],
        currency=row["currency"], at_stake=gone, since=row["created"], theirs=gone, user_id=user,
        payment_id=payment, gateway_ref=row["gateway_ref"], detail=detail, action=action,
        **repairs_of(events or []),
    )  # fmt: skip


def _observed_aged(db: sqlite3.Connection, rules: Rules) -> Iterator[Break]:
    for row in db.execute(_LATE_OBSERVED, (rules.as_of - rules.observed_after,)):
        yield Break(
            class_="observed_aged", legs=(row["gateway"], row["payment"]), gateway=row["gateway"],
            kind=row["action"], currency=row["currency"], at_stake=row["amount"], since=row["at"],
            theirs=row["amount"] if row["seen"] == "succeeded" else None, user_id=row["user_id"],
            payment_id=row["payment_id"], gateway_ref=row["gateway_ref"],
            detail=f"the gateway reported it ({row['seen']}); its event never arrived",
            action="by hand: send the event again (same payment_id), or refund it at the gateway",
        )  # fmt: skip
