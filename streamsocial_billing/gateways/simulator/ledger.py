"""The durable ledger of the simulated gateway.

Recorded means: its SQLite transaction is committed (WAL, synchronous=NORMAL). That survives the death of
the process at any moment, kill -9 included, because the bytes are then with the operating system. It does
not promise to survive a power cut: the last commits may be missing then, the file stays consistent.

Everything is held in memory too, rebuilt from the file at start, changed only after a commit: what can be
read is durable.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from streamsocial_billing.gateways.simulator.intents import Intent
from streamsocial_billing.gateways.simulator.ledger_file import Entry, LedgerFile, LedgerUnusable
from streamsocial_billing.gateways.simulator.shapes import Charge, Refund, Reply

Change = tuple[Intent, Charge | None]
"""What an intent becomes, and the charge that it makes."""

MAX_GROUP_ENTRIES = 1000
"""Most charges that share one SQLite transaction."""


class Ledger:
    """All charges of the gateway; used from one event loop, `open` before and `close` after everything.

    `charges`, `refunds` are in the order of commits, `intents` too, by their ids; `replies`, `calls` (POSTs
    seen) by idempotency key.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.charges: list[Charge] = []
        self.refunds: list[Refund] = []
        self.intents: dict[str, Intent] = {}
        self.replies: dict[str, Reply] = {}
        self.calls: dict[str, int] = {}
        self._positions: dict[str, int] = {}
        self._by_ref: dict[str, list[int]] = {}
        self._refund_positions: dict[str, int] = {}
        self._refunds_by_ref: dict[str, list[int]] = {}
        self._entries: list[tuple[Entry, asyncio.Future[None]]] = []
        self._new_calls: dict[str, int] = {}
        self._wake = asyncio.Event()
        self._changing = asyncio.Lock()
        self._closing = False
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="ledger")
        self._file = LedgerFile(path)
        self._writer: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Open or make the file, load it, start the writer; raises LedgerUnusable."""
        try:
            await asyncio.get_running_loop().run_in_executor(self._thread, self._open)
        except (OSError, sqlite3.Error) as error:
            self._let_go()
            reason = error.strerror if isinstance(error, OSError) else str(error)
            raise LedgerUnusable(
                f"cannot write the ledger {self.path} ({reason}): choose another --ledger"
            ) from error
        except LedgerUnusable:
            self._let_go()
            raise
        self._writer = asyncio.create_task(self._write_groups())

    async def close(self) -> None:
        """Commit what waits, then close the file."""
        self._closing = True
        self._wake.set()
        if self._writer is not None:
            await self._writer
        await asyncio.get_running_loop().run_in_executor(self._thread, self._file.close)
        self._let_go()

    def _let_go(self) -> None:
        self._thread.shutdown()
        self._file.let_go()

    def charge(self, charge_id: str) -> Charge | None:
        """The charge with this id."""
        position = self._positions.get(charge_id)
        return None if position is None else self.charges[position]

    def charges_with_ref(self, ref: str) -> list[Charge]:
        """All charges with this `metadata.ref`, newest first."""
        return [self.charges[position] for position in reversed(self._by_ref.get(ref, []))]

    def page(self, *, limit: int, before: str | None) -> tuple[list[Charge], bool]:
        """Up to `limit` charges, newest first, older than charge `before`; whether there are older ones.

        Raises KeyError for an unknown `before`.
        """
        end = len(self.charges) if before is None else self._positions[before]
        start = max(end - limit, 0)
        return self.charges[start:end][::-1], start > 0

    def refund(self, refund_id: str) -> Refund | None:
        """The refund with this id."""
        position = self._refund_positions.get(refund_id)
        return None if position is None else self.refunds[position]

    def refunds_with_ref(self, ref: str) -> list[Refund]:
        """All refunds with this `metadata.ref`, newest first."""
        return [self.refunds[position] for position in reversed(self._refunds_by_ref.get(ref, []))]

    def refund_page(self, *, limit: int, before: str | None) -> tuple[list[Refund], bool]:
        """Like `page`, of refunds."""
        end = len(self.refunds) if before is None else self._refund_positions[before]
        start = max(end - limit, 0)
        return self.refunds[start:end][::-1], start > 0

    def count_call(self, key: str) -> None:
        """Count a POST with this key; durable with the next group, nobody waits for it."""
        self.calls[key] = self.calls.get(key, 0) + 1
        self._new_calls[key] = self._new_calls.get(key, 0) + 1
        self._wake.set()

    async def record(self, entry: Entry) -> None:
        """Return when the entry is committed; an sqlite3.Error says that it is not."""
        done = asyncio.get_running_loop().create_future()
        self._entries.append((entry, done))
        self._wake.set()
        await done

    async def fail_refund(self, refund_id: str, reason: str) -> Refund:
        """A refund that had succeeded fails now; the amount is back. Durable when this returns.

        The reply under its key stays what it was. One that has failed stays as it is. Raises KeyError for an
        unknown refund.
        """
        async with self._changing:
            position = self._refund_positions[refund_id]
            refund = self.refunds[position]
            if refund.status != "succeeded":
                return refund
            run = asyncio.get_running_loop().run_in_executor
            await run(self._thread, self._file.commit_failure, refund_id, reason)
            failed = self.refunds[position] = replace(refund, status="failed", failure_reason=reason)
            self.charges[self._positions[refund.charge_id]].refunded -= refund.amount
            return failed

    async def change_intent(self, intent_id: str, change: Callable[[Intent], Change]) -> Intent:
        """What `change` makes of an intent as it is now, one at a time; durable when this returns.

        The reply under its key stays what it was. Raises KeyError for an unknown intent, and what `change`
        raises.
        """
        async with self._changing:
            changed, charge = change(self.intents[intent_id])
            run = asyncio.get_running_loop().run_in_executor
            await run(self._thread, self._file.commit_change, changed, charge)
            if charge is not None:
                self._index(charge)
            self.intents[intent_id] = changed
            return changed

    async def _write_groups(self) -> None:
        """All that came in while one group was being committed makes up the next."""
        while not (self._closing and not self._entries and not self._new_calls):
            await self._wake.wait()
            self._wake.clear()
            await self._write_group()
            if self._entries:  # more than one group holds
                self._wake.set()

    async def _write_group(self) -> None:
        group, self._entries = self._entries[:MAX_GROUP_ENTRIES], self._entries[MAX_GROUP_ENTRIES:]
        calls, self._new_calls = self._new_calls, {}
        entries = [entry for entry, _ in group]
        try:
            await asyncio.get_running_loop().run_in_executor(self._thread, self._file.commit, entries, calls)
        except Exception as error:
            # Rolled back as a whole, so every waiting POST answers 500 and a repeat is a new charge.
            for _, done in group:
                if not done.done():
                    done.set_exception(error)
            return
        for entry, done in group:
            self._remember(entry)
            if not done.done():
                done.set_result(None)

    def _remember(self, entry: Entry) -> None:
        made = entry.made
        self.replies[made.idempotency_key] = entry.reply
        self._add(made)

    def _add(self, made: Charge | Refund | Intent) -> None:
        if isinstance(made, Charge):
            self._index(made)
        elif isinstance(made, Refund):
            self._index_refund(made)
        else:
            self.intents[made.id] = made
            if made.charge_id is not None:
                self.charges[self._positions[made.charge_id]].payment_intent = made.id

    def _index_refund(self, refund: Refund) -> None:
        intent = self.charges[self._positions[refund.charge_id]].payment_intent
        refund = refund if intent is None else replace(refund, payment_intent=intent)
        position = len(self.refunds)
        self.refunds.append(refund)
        self._refund_positions[refund.id] = position
        if refund.ref is not None:
            self._refunds_by_ref.setdefault(refund.ref, []).append(position)
        if refund.status == "succeeded":
            self.charges[self._positions[refund.charge_id]].refunded += refund.amount

    def _index(self, charge: Charge) -> None:
        position = len(self.charges)
        self.charges.append(charge)
        self._positions[charge.id] = position
        if charge.ref is not None:
            self._by_ref.setdefault(charge.ref, []).append(position)

    def _open(self) -> None:
        """Inside the ledger's own thread, before anything is served."""
        self._file.open()
        for made in self._file.made():
            self._add(made)
        self.replies.update(self._file.replies())
        self.calls.update(self._file.calls())
