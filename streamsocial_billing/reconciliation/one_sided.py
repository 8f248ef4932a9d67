"""The breaks of what one leg has alone, or has twice."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping
from typing import Any, Final

from streamsocial_billing.domain.money import format_minor
from streamsocial_billing.reconciliation.breaks import TIMING, Break
from streamsocial_billing.reconciliation.matching import PROPOSE_MOST, proposals
from streamsocial_billing.reconciliation.repairing import (
    dispute_events,
    repaired_by,
    repairs_of,
)
from streamsocial_billing.reconciliation.rules import Rules, repair_event

Row = Mapping[str, Any]

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
# money of an intent that we had called declined, less what of it was refunded
_LATE_SUCCESS: Final = """
SELECT a.*, a.amount - coalesce((SELECT sum(r.amount) FROM a AS r WHERE r.user_id = a.user_id
    AND r.refund_of = a.payment_id AND r.action = 'refund' AND r.moved > 0), 0) AS left
FROM a WHERE a.origin = 'external' AND a.reason = 'succeeded_after_decline' AND a.moved > 0 AND left > 0
ORDER BY a.fold"""
_NO_WAIT: Final = "fold NOT IN (SELECT payment FROM waiting)"
_LATE_OBSERVED: Final = """
SELECT * FROM observed o WHERE at <= ? AND seen <> 'declined'
    AND NOT EXISTS (SELECT 1 FROM a WHERE a.fold = o.payment)
ORDER BY payment"""


def missing_external(db: sqlite3.Connection, rules: Rules) -> Iterator[Break]:
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


def unknown_aged(db: sqlite3.Connection, rules: Rules) -> Iterator[Break]:
    """Open here for long, and the gateway has nothing."""
    late = f"status IN ('unknown', 'parked') AND at <= {rules.as_of - rules.unknown_after:d} AND {_NO_WAIT}"
    for row in db.execute(_ALONE.format(which=late)):
        yield Break(
            class_="unknown_aged", legs=(row["gateway"], row["fold"]), gateway=row["gateway"],
            kind=row["action"], currency=row["currency"], at_stake=row["amount"], since=row["at"],
            user_id=row["user_id"], payment_id=row["payment_id"], gateway_ref=row["gateway_ref"],
            detail=f"{row['status']} ({row['reason']}), and the gateway's list has nothing",
            action="wait for the next try" if row["status"] == "unknown" else "by hand: `resolve`",
        )  # fmt: skip


def late_successes(db: sqlite3.Connection) -> Iterator[Break]:
    """Money that is in our books, and that nobody there asked for any more."""
    for row in db.execute(_LATE_SUCCESS):
        amount = format_minor(row["left"], row["currency"])
        yield Break(
            class_="status_mismatch", legs=(row["gateway"], row["fold"], row["gateway_ref"]),
            gateway=row["gateway"], kind="charge", currency=row["currency"], at_stake=row["left"],
            since=row["at"], ours=row["amount"], theirs=row["amount"], user_id=row["user_id"],
            payment_id=row["payment_id"], gateway_ref=row["gateway_ref"],
            detail=f"{row['refund_of']} was declined, its customer confirmed {row['gateway_ref']} afterwards",
            action=f"proposed: refund {amount} of {row['payment_id']}; nothing is refunded by itself",
        )  # fmt: skip


def duplicate_internal(db: sqlite3.Connection) -> Iterator[Break]:
    """One movement that our books have twice."""
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


def unknown_to_us(db: sqlite3.Connection, rules: Rules) -> Iterator[Break]:
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


def observed_aged(db: sqlite3.Connection, rules: Rules) -> Iterator[Break]:
    """What a gateway reported long ago, and whose event never came."""
    for row in db.execute(_LATE_OBSERVED, (rules.as_of - rules.observed_after,)):
        yield Break(
            class_="observed_aged", legs=(row["gateway"], row["payment"]), gateway=row["gateway"],
            kind=row["action"], currency=row["currency"], at_stake=row["amount"], since=row["at"],
            theirs=row["amount"] if row["seen"] == "succeeded" else None, user_id=row["user_id"],
            payment_id=row["payment_id"], gateway_ref=row["gateway_ref"],
            detail=f"the gateway reported it ({row['seen']}); its event never arrived",
            action="by hand: send the event again (same payment_id), or refund it at the gateway",
        )  # fmt: skip
