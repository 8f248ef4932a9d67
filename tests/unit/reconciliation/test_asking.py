"""Before a break says that the gateway has nothing, the gateway is asked twice."""

from __future__ import annotations

import sqlite3

from support.listed_gateway import ListedGateway
from support.small_books import OLD, RULES, classes, filled, result

from streamsocial_billing.domain.gateway_calls import Movement
from streamsocial_billing.domain.payment_identity import gateway_key_of
from streamsocial_billing.reconciliation.asking import ask
from streamsocial_billing.reconciliation.findings import between_books_and_lists
from streamsocial_billing.reconciliation.matching import index_for_proposals, match
from streamsocial_billing.reconciliation.report import breaks_in_order
from streamsocial_billing.reconciliation.run import keep_breaks

KEY = gateway_key_of("ann", "charge", "p0")


def broken(results: list[bytes], listed: list[Movement]) -> sqlite3.Connection:
    """A store with its breaks."""
    db = filled(results, listed, ())
    match(db)
    index_for_proposals(db)
    keep_breaks(db, RULES, between_books_and_lists(db, RULES))
    return db


async def test_what_the_gateway_confirms_is_only_a_list_that_lags() -> None:
    """No break, no question more."""
    db = broken([result("p0")], [])
    moved = Movement("ch_p0", "charge", "succeeded", 100, "EUR", OLD, KEY, "p0", "ann")
    gateway = ListedGateway("simulated", [moved])
    await ask(db, {"simulated": gateway})
    db.row_factory = None
    (found,) = breaks_in_order(db)
    assert ("timing", False, 1) == (found["class"], found["open"], gateway.questions)


async def test_what_the_gateway_denies_twice_is_a_break() -> None:
    """The report says that it was asked."""
    db = broken([result("p0")], [])
    gateway = ListedGateway("simulated", [])
    await ask(db, {"simulated": gateway})
    db.row_factory = None
    found = list(breaks_in_order(db))
    assert [("missing_external", "ch_p0")] == classes(found)
    assert found[0]["detail"].endswith("the gateway, asked twice, has nothing")
    assert 2 == gateway.questions


async def test_another_amount_confirms_nothing() -> None:
    """An answer counts only if user, amount and currency agree."""
    db = broken([result("p0")], [])
    moved = Movement("ch_p0", "charge", "succeeded", 101, "EUR", OLD, KEY, "p0", "ann")
    await ask(db, {"simulated": ListedGateway("simulated", [moved])})
    db.row_factory = None
    assert [("missing_external", "ch_p0")] == classes(breaks_in_order(db))


async def test_asking_leaves_a_repair_as_it_is() -> None:
    """An open payment that the gateway has declined is settled by an event."""
    moved = Movement("ch_p0", "charge", "failed", 100, "EUR", OLD, KEY, "p0", "ann")
    db = broken([result("p0", "unknown", gateway_ref=None)], [moved])
    before = db.execute("SELECT event FROM breaks").fetchall()
    await ask(db, {"simulated": ListedGateway("simulated", [moved])})
    db.row_factory = None
    assert before == db.execute("SELECT event FROM breaks WHERE event IS NOT NULL").fetchall()
    assert [("status_mismatch", "ch_p0")] == classes(breaks_in_order(db))
