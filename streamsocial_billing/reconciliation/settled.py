"""Finds the breaks between the gateways' lists and the settlement files."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping
from typing import Any, Final

from streamsocial_billing.domain.money import format_minor
from streamsocial_billing.reconciliation.breaks import TIMING, Break, exponent_suspect
from streamsocial_billing.reconciliation.not_ours import LINE_IS_OURS
from streamsocial_billing.reconciliation.rules import Rules

Row = Mapping[str, Any]

_EXPECTED: Final = """
    CASE WHEN b.status <> 'succeeded' THEN 0 WHEN b.kind IN ('charge', 'dispute_won') THEN b.amount
        ELSE b.returned - b.amount END"""
# settled in another currency: what the customer paid stands beside it, and is what the list knows. Of a
# dispute it is the whole amount whatever moved: there nothing is compared. What is pending may be settled
_SETTLED: Final = f"""
SELECT b.*, a.user_id AS a_user, a.payment_id AS a_payment, count(*) AS lines,
    sum(coalesce(l.facing, l.gross)) AS gross, sum(l.fee) AS line_fee, min(l.at) AS line_at,
    min(l.payout_id) AS payout_id, min(coalesce(l.facing_currency, l.currency)) AS line_currency,
    {_EXPECTED} AS expected, max(l.facing IS NOT NULL) AS followed,
    min(coalesce(l.facing_currency, l.currency)) <> max(coalesce(l.facing_currency, l.currency))
        OR min(coalesce(l.facing_currency, l.currency)) <> b.currency AS foreign_currency
FROM lm JOIN b ON b.id = lm.b JOIN kept.lines l ON l.id = lm.line LEFT JOIN a ON a.id = b.a
WHERE lm.b IS NOT NULL AND b.ours AND b.status <> 'pending' GROUP BY lm.b
HAVING (NOT (followed AND b.kind = 'dispute')
        AND (sum(coalesce(l.facing, l.gross)) <> expected OR foreign_currency))
    OR (b.kind = 'charge' AND b.status = 'succeeded' AND b.fee IS NOT NULL AND NOT followed
        AND sum(l.fee) <> b.fee)
ORDER BY b.gateway, b.gateway_ref"""  # noqa: S608 - constants
_AGAINST_BOOKS: Final = """
SELECT a.*, sum(coalesce(l.facing, l.gross)) AS gross,
    min(coalesce(l.facing_currency, l.currency)) AS line_currency, min(l.at) AS line_at,
    min(l.payout_id) AS payout_id
FROM lm JOIN a ON a.id = lm.a JOIN kept.lines l ON l.id = lm.line
WHERE lm.a IS NOT NULL AND a.moved > 0 GROUP BY lm.a
HAVING (abs(sum(coalesce(l.facing, l.gross))) <> a.amount - a.returned OR line_currency <> a.currency)
    AND NOT (a.action = 'dispute' AND (max(l.facing IS NOT NULL) OR (line_currency = a.currency
        AND sum(l.gross) = -a.amount)))
ORDER BY a.fold"""
_UNSETTLED: Final = """
SELECT b.* FROM b
JOIN (SELECT gateway, min(at) AS first FROM kept.lines WHERE kind = 'charge' GROUP BY gateway) f
    ON f.gateway = b.gateway AND b.created >= f.first
WHERE b.kind = 'charge' AND b.status = 'succeeded' AND b.ours AND b.created <= ?
    AND NOT EXISTS (SELECT 1 FROM lm WHERE lm.b = b.id) ORDER BY b.gateway, b.gateway_ref"""
_PAYOUTS: Final = """
SELECT p.gateway, p.payout_id, p.currency, p.paid, p.at, coalesce(l.net, 0) AS net,
    coalesce(l.lines, 0) AS lines
FROM (SELECT gateway, payout_id, currency, sum(net) AS paid, min(at) AS at FROM kept.lines
    WHERE kind = 'payout' AND payout_id IS NOT NULL GROUP BY gateway, payout_id, currency) p
LEFT JOIN (SELECT gateway, payout_id, currency, sum(net) AS net, count(*) AS lines FROM kept.lines
    WHERE kind <> 'payout' AND payout_id IS NOT NULL GROUP BY gateway, payout_id, currency) l
    ON l.gateway = p.gateway AND l.payout_id = p.payout_id AND l.currency = p.currency
WHERE p.paid <> coalesce(l.net, 0) ORDER BY p.gateway, p.payout_id, p.currency"""
_ORPHANS: Final = f"""
SELECT l.*, row_number() OVER (
    PARTITION BY l.gateway, l.kind, l.gateway_ref, l.ref, l.payout_id, l.currency, l.gross ORDER BY l.id
) AS nth
FROM loose JOIN kept.lines l ON l.id = loose.id WHERE l.at >= ? AND ({LINE_IS_OURS})
ORDER BY l.gateway, l.kind, l.gateway_ref, l.ref, l.payout_id, l.currency, l.gross, nth"""  # noqa: S608 - constants


def between_lists_and_files(db: sqlite3.Connection, rules: Rules) -> Iterator[Break]:
    """Every break of the settlement leg; none where no file was loaded."""
    db.row_factory = sqlite3.Row
    for row in db.execute(_SETTLED):
        yield from _settled(row)
    for row in db.execute(_AGAINST_BOOKS):
        yield _against_books(row)
    yield from _unsettled(db, rules)
    for row in db.execute(_PAYOUTS):
        yield _payout(row)
    for row in db.execute(_ORPHANS, (rules.since,)):
        if row["at"] >= rules.listed_since(row["gateway"]):
            yield _orphan(rules, row)


def _settled(row: Row) -> Iterator[Break]:
    """One movement with its lines: doubled, of another amount, with another fee."""
    gross, expected = row["gross"], row["expected"]
    if gross != expected or row["foreign_currency"]:
        whole = expected and not row["foreign_currency"] and gross % expected == 0
        if whole and gross // expected == row["lines"] > 1:
            yield _doubled(row)
        else:
            yield _other_amount(row)
    elif row["fee"] is not None and row["kind"] == "charge" and row["line_fee"] != row["fee"]:
        yield _of_lines(
            row=row,
            class_="fee_mismatch",
            at_stake=abs(row["line_fee"] - row["fee"]),
            theirs=row["fee"],
            settled=row["line_fee"],
            detail=f"the gateway's list: {format_minor(row['fee'], row['currency'])}, "
            f"the file: {format_minor(row['line_fee'], row['currency'])}",
            action="by hand: ask the gateway which fee it takes",
            currency=row["currency"],
        )  # fmt: skip


def _doubled(row: Row) -> Break:
    return _of_lines(
        row=row, class_="duplicate_external", at_stake=abs(row["gross"] - row["expected"]),
        theirs=row["amount"], settled=row["gross"], detail=f"settled in {row['lines']} lines",
        action="by hand: ask the gateway; a later file may take one back", currency=row["currency"],
    )  # fmt: skip


def _other_amount(row: Row) -> Break:
    class_ = "refund_mismatch" if row["kind"] == "refund" else "amount_mismatch"
    at_stake = abs(row["expected"]) if row["foreign_currency"] else abs(row["gross"] - row["expected"])
    suspect = exponent_suspect(abs(row["expected"]), abs(row["gross"])) and row["expected"] != 0
    return _of_lines(
        row=row,
        class_=class_,
        at_stake=at_stake,
        theirs=row["expected"],
        settled=row["gross"],
        detail=f"the gateway's list: {format_minor(row['expected'], row['currency'])}, "
        f"the file: {format_minor(row['gross'], row['line_currency'])}",
        action="by hand: ask the gateway which one is right",
        currency=row["currency"],
        tags=("exponent_suspect",) if suspect else (),
    )  # fmt: skip


def _of_lines(
    row: Row, class_: str, at_stake: int, theirs: int, settled: int, detail: str, action: str,
    currency: str, tags: tuple[str, ...] = (),
) -> Break:  # fmt: skip
    return Break(
        class_=class_, legs=(row["gateway"], row["gateway_ref"], "settlement"), gateway=row["gateway"],
        kind=row["kind"], currency=currency, at_stake=at_stake, since=min(row["created"], row["line_at"]),
        theirs=theirs, settled=settled, user_id=row["a_user"] or row["user_id"],
        payment_id=row["a_payment"] or row["payment_id"], gateway_ref=row["gateway_ref"],
        payout_id=row["payout_id"], tags=tags, detail=detail, action=action,
    )  # fmt: skip


def _against_books(row: Row) -> Break:
    """Older than the list that was read: our books are all there is to hold the line against."""
    suspect = exponent_suspect(row["amount"], abs(row["gross"]))
    return Break(
        class_="refund_mismatch" if row["action"] == "refund" else "amount_mismatch",
        legs=(row["gateway"], row["fold"], "settlement"), gateway=row["gateway"], kind=row["action"],
        currency=row["currency"], at_stake=abs(abs(row["gross"]) - row["amount"]),
        since=min(row["at"], row["line_at"]), ours=row["amount"], settled=row["gross"],
        user_id=row["user_id"], payment_id=row["payment_id"], gateway_ref=row["gateway_ref"],
        payout_id=row["payout_id"], tags=("exponent_suspect",) if suspect else (),
        detail=f"our books: {format_minor(row['amount'], row['currency'])}, "
        f"the file: {format_minor(row['gross'], row['line_currency'])}",
        action="by hand: ask the gateway which one is right",
    )  # fmt: skip


def _unsettled(db: sqlite3.Connection, rules: Rules) -> Iterator[Break]:
    """From the first settled charge on: files that were never loaded are not a break of each payment."""
    for row in db.execute(_UNSETTLED, (rules.as_of,)):
        if rules.unsettled(row["created"]):
            yield Break(
                class_="unsettled_aged", legs=(row["gateway"], row["gateway_ref"]), gateway=row["gateway"],
                kind="charge", currency=row["currency"], at_stake=row["amount"], since=row["created"],
                theirs=row["amount"], user_id=row["user_id"], payment_id=row["payment_id"],
                gateway_ref=row["gateway_ref"],
                detail=f"in no settlement file {rules.settlement_days} business days after the charge",
                action="load the newer settlement files; if it is in none, ask the gateway",
            )  # fmt: skip


def _payout(row: Row) -> Break:
    currency = row["currency"]
    return Break(
        class_="payout_total", legs=(row["gateway"], row["payout_id"], currency), gateway=row["gateway"],
        kind="payout", currency=currency, at_stake=abs(row["paid"] - row["net"]), since=row["at"],
        theirs=row["paid"], settled=row["net"], payout_id=row["payout_id"],
        detail=f"paid {format_minor(row['paid'], currency)}, its {row['lines']} lines add up to "
        f"{format_minor(row['net'], currency)}",
        action="load the files that are missing; if none is, ask the gateway for the lines of this payout",
    )  # fmt: skip


def _orphan(rules: Rules, row: Row) -> Break:
    young = row["at"] > rules.as_of - rules.window
    dispute = row["kind"] == "dispute"
    class_ = TIMING if young else "dispute_unbooked" if dispute else "orphan_line"
    names = (row["gateway"], row["kind"], row["gateway_ref"] or "", row["ref"] or "", row["payout_id"] or "")
    return Break(
        class_=class_, legs=(*names, row["currency"], str(row["gross"]), str(row["nth"]), "line"),
        gateway=row["gateway"], kind=row["kind"], currency=row["currency"], at_stake=abs(row["gross"]),
        since=row["at"], settled=row["gross"], gateway_ref=row["gateway_ref"], payout_id=row["payout_id"],
        detail=f"{row['kind']} {row['gateway_ref'] or 'without a reference'}: only in the settlement file",
        action="nothing: under way" if young else "by hand: ask the gateway whose it is",
    )  # fmt: skip
