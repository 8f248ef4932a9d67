"""Finds the breaks between our books and the gateways' lists."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator

from streamsocial_billing.reconciliation.breaks import Break
from streamsocial_billing.reconciliation.differing import amounts, refunds_of_other_charges, statuses
from streamsocial_billing.reconciliation.one_sided import (
    duplicate_internal,
    late_successes,
    missing_external,
    observed_aged,
    unknown_aged,
    unknown_to_us,
)
from streamsocial_billing.reconciliation.rules import Rules


def between_books_and_lists(db: sqlite3.Connection, rules: Rules) -> Iterator[Break]:
    """Every break of the two legs, those under way among them."""
    db.row_factory = sqlite3.Row
    yield from amounts(db)
    yield from statuses(db, rules)
    yield from late_successes(db)
    yield from refunds_of_other_charges(db)
    yield from missing_external(db, rules)
    yield from unknown_aged(db, rules)
    yield from duplicate_internal(db)
    yield from unknown_to_us(db, rules)
    yield from observed_aged(db, rules)
