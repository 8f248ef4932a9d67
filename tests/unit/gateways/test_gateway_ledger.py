"""The simulator's ledger on a real file, without the server around it."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

import pytest

from streamsocial_billing.gateways.simulator.ledger import MAX_GROUP_ENTRIES, Ledger
from streamsocial_billing.gateways.simulator.ledger_file import Entry
from streamsocial_billing.gateways.simulator.shapes import Refund, charge_reply, new_charge, refund_reply


def entry(number: int, key: str = "") -> Entry:
    params = {"amount": number + 1, "currency": "eur", "payment_method": "pm_card_visa"}
    charge = new_charge(key or f"k{number}", params, charge_id=f"ch_{number}", now_ms=1_700_000_000_000)
    return Entry(charge, charge_reply(charge, "hash"))


async def test_charges_at_the_same_time_share_transactions(tmp_path: Path) -> None:
    """2 500 charges at once are all recorded, in a handful of transactions, in the order they came."""
    ledger = Ledger(tmp_path / "deep" / "ledger.db")
    await ledger.open()
    count = 2 * MAX_GROUP_ENTRIES + 500
    statements: list[str] = []
    db = ledger._file._db  # noqa: SLF001 - only SQLite itself can tell its commits, only in the ledger's thread
    assert db is not None
    ledger._thread.submit(db.set_trace_callback, statements.append).result(5)  # noqa: SLF001
    await asyncio.wait_for(asyncio.gather(*(ledger.record(entry(n)) for n in range(count))), 20)
    assert statements.count("COMMIT") <= 4
    await ledger.close()

    again = Ledger(ledger.path)
    await again.open()
    assert [f"ch_{n}" for n in range(count)] == [charge.id for charge in again.charges]
    assert ledger.charges == again.charges
    assert ledger.replies == again.replies
    await again.close()


async def test_a_group_that_fails_is_on_the_books_neither_in_memory_nor_on_disk(tmp_path: Path) -> None:
    """A transaction fails as a whole, everyone in it is told, and the next one works."""
    ledger = Ledger(tmp_path / "ledger.db")
    await ledger.open()
    await ledger.record(entry(1, key="taken"))
    refund = Refund("re_1", "taken", "ch_1", 1, "EUR", 1_700_000_000_000)
    group = [ledger.record(entry(2)), ledger.record(Entry(refund, refund_reply(refund, "hash")))]
    told = await asyncio.gather(*group, return_exceptions=True)
    assert [sqlite3.IntegrityError] * 2 == [type(error) for error in told]
    await ledger.record(entry(4))
    assert ["ch_1", "ch_4"] == [charge.id for charge in ledger.charges]
    await ledger.close()

    again = Ledger(ledger.path)
    await again.open()
    assert ["ch_1", "ch_4"] == [charge.id for charge in again.charges]
    await again.close()


@pytest.mark.parametrize("calls", [1, 3])
async def test_counted_calls_are_durable_when_the_ledger_closes(tmp_path: Path, calls: int) -> None:
    """A call that made no charge is counted too."""
    ledger = Ledger(tmp_path / "ledger.db")
    for _ in range(2):
        await ledger.open()
        for _ in range(calls):
            ledger.count_call("k")
        await ledger.close()
        ledger = Ledger(ledger.path)
    await ledger.open()
    assert {"k": 2 * calls} == ledger.calls
    await ledger.close()


async def test_a_ledger_of_format_1_is_taken_over(tmp_path: Path) -> None:
    """Charges and refunds of the format before stay on the books; new refunds carry our reference."""
    path = tmp_path / "ledger.db"
    ledger = Ledger(path)
    await ledger.open()
    await ledger.record(entry(99))
    old = Refund("re_1", "r1", "ch_99", 40, "EUR", 1_700_000_000_000)
    await ledger.record(Entry(old, refund_reply(old, "hash")))
    await ledger.close()
    with sqlite3.connect(path) as db:
        for name in ("status", "failure_reason", "ref", "payment_id", "user_id", "fingerprint"):
            db.execute(f"ALTER TABLE refunds DROP COLUMN {name}")
        db.execute("PRAGMA user_version = 1")
    db.close()

    for _ in range(2):
        again = Ledger(path)
        await again.open()
        assert [old] == again.refunds
        assert 40 == again.charges[0].refunded
        await again.close()
    last = Ledger(path)
    await last.open()
    why = "expired_or_canceled_card"
    failed = Refund("re_2", "r2", "ch_99", 9, "EUR", 1, "failed", why, "ss1_r", "p", "u")
    await last.record(Entry(failed, refund_reply(failed, "hash")))
    assert [failed] == last.refunds_with_ref("ss1_r")
    assert 40 == last.charges[0].refunded
    await last.close()
