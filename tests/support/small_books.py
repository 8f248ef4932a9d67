"""Reconciles legs that are given as lists, in memory: matching with breaks, without Kafka or files."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from typing import Any

import orjson
from support.planted_books import AS_OF, DAY

from streamsocial_billing.domain.gateway_calls import Movement
from streamsocial_billing.domain.results import charge_result
from streamsocial_billing.gateways.settlement_lines import Line
from streamsocial_billing.reconciliation.bridge import Bridge, bridges
from streamsocial_billing.reconciliation.findings import between_books_and_lists
from streamsocial_billing.reconciliation.gateway_lists import row_of
from streamsocial_billing.reconciliation.matching import index_for_proposals, match
from streamsocial_billing.reconciliation.not_ours import refuse_unreadable
from streamsocial_billing.reconciliation.report import breaks_in_order
from streamsocial_billing.reconciliation.results import fold_results, result_row
from streamsocial_billing.reconciliation.rules import Rules
from streamsocial_billing.reconciliation.run import keep_breaks
from streamsocial_billing.reconciliation.settled import between_lists_and_files
from streamsocial_billing.reconciliation.store import ADD_A, ADD_B, ADD_LINE, in_memory, insert_many

OLD: int = AS_OF - 20 * DAY
"""Long enough ago that nothing is only under way."""
RULES = Rules(as_of=AS_OF, told_by=lambda _: AS_OF)


def reconciled(
    results: Iterable[bytes], movements: Iterable[Movement] = (), lines: Iterable[Line] = (),
    rules: Rules = RULES, gateway: str = "simulated",
) -> tuple[list[dict[str, Any]], list[Bridge]]:  # fmt: skip
    """The breaks as a report has them, and the bridges; the movements are those of `gateway`."""
    db = filled(results, movements, lines, gateway)
    return found_in(db, rules), bridges(db)


def found_in(db: sqlite3.Connection, rules: Rules = RULES) -> list[dict[str, Any]]:
    """The breaks of a store, matched here."""
    match(db)
    refuse_unreadable(db)
    index_for_proposals(db)
    keep_breaks(db, rules, between_books_and_lists(db, rules))
    keep_breaks(db, rules, between_lists_and_files(db, rules))
    return list(breaks_in_order(db))


def filled(
    results: Iterable[bytes], movements: Iterable[Movement] = (), lines: Iterable[Line] = (),
    gateway: str = "simulated",
) -> sqlite3.Connection:  # fmt: skip
    """A store with these legs."""
    db = in_memory()
    rows = (result_row(value, "here") for value in results)
    insert_many(db, ADD_A, (row for row in rows if row is not None))
    fold_results(db)
    insert_many(db, ADD_B, (row_of(gateway, moved) for moved in movements))
    db.execute("INSERT INTO kept.files (hash, name, format, lines) VALUES ('h', 'f', 'simple', 1)")
    insert_many(
        db, ADD_LINE,
        ((1, at, line.gateway, line.line_id, line.kind, *line[3:]) for at, line in enumerate(lines)),
    )  # fmt: skip
    return db


def result(payment_id: str, status: str = "succeeded", **changed: Any) -> bytes:
    """A charge result of one user."""
    told: dict[str, Any] = {
        "payment_id": payment_id, "user_id": "ann", "action": "charge", "product": "gift", "status": status,
        "reason": None, "replayed": False, "amount_minor": 100, "currency": "EUR", "gateway": "simulated",
        "gateway_ref": f"ch_{payment_id}", "attempt": 1, "requested_at": OLD, "processed_at": OLD,
        "source": None,
    } | changed  # fmt: skip
    return charge_result(**told)


def classes(breaks: Iterable[dict[str, Any]]) -> list[tuple[str, str]]:
    """Class and name of each, in order of name."""
    names = ("gateway_ref", "payment_id", "payout_id")
    return sorted((one["class"], next(one[name] for name in names if one[name])) for one in breaks)


def as_text(breaks: object) -> str:
    """For comparing whole reports."""
    return orjson.dumps(breaks).decode()
