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
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

import orjson

from streamsocial_billing.gateways.simulator.shapes import Charge, Refund, Reply
from streamsocial_billing.locks import lock

SCHEMA_VERSION = 2
MAX_GROUP_ENTRIES = 1000
"""Most charges that share one SQLite transaction."""

_SCHEMA = """
CREATE TABLE charges (
    seq INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, idempotency_key TEXT NOT NULL UNIQUE,
    params_hash TEXT NOT NULL, amount INTEGER NOT NULL, currency TEXT NOT NULL,
    status TEXT NOT NULL CHECK (status IN ('succeeded', 'failed')), failure_code TEXT,
    payment_method TEXT NOT NULL, ref TEXT, payment_id TEXT, user_id TEXT, fingerprint TEXT,
    created_ms INTEGER NOT NULL);
CREATE TABLE refunds (
    seq INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, idempotency_key TEXT NOT NULL UNIQUE,
    charge_id TEXT NOT NULL, amount INTEGER NOT NULL, currency TEXT NOT NULL, created_ms INTEGER NOT NULL,
    status TEXT NOT NULL DEFAULT 'succeeded', failure_reason TEXT, ref TEXT, payment_id TEXT, user_id TEXT,
    fingerprint TEXT);
CREATE TABLE replies (
    idempotency_key TEXT PRIMARY KEY, params_hash TEXT NOT NULL, status INTEGER NOT NULL,
    body TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE calls (idempotency_key TEXT PRIMARY KEY, calls INTEGER NOT NULL) WITHOUT ROWID;
"""

_FROM_1 = "ALTER TABLE refunds ADD COLUMN status TEXT NOT NULL DEFAULT 'succeeded';" + "".join(
    f"ALTER TABLE refunds ADD COLUMN {name} TEXT;"
    for name in ("failure_reason", "ref", "payment_id", "user_id", "fingerprint")
)
"""Format 1 had no refunds that fail and no metadata on them."""


# One statement per table writes a whole group: each step of a statement gives the interpreter lock away
# and waits for it again, so that a statement per row would crawl behind a busy event loop.
def _insert(table: str, columns: str) -> str:
    """A statement whose one parameter is a JSON array of rows, each an array in the order of `columns`."""
    values = ", ".join(f"json_extract(value, '$[{place}]')" for place in range(columns.count(",") + 1))
    return f"INSERT INTO {table} ({columns}) SELECT {values} FROM json_each(?)"  # noqa: S608 - constants


_ADD_CHARGES = _insert(
    "charges",
    "id, idempotency_key, params_hash, amount, currency, status, failure_code, payment_method, ref,"
    " payment_id, user_id, fingerprint, created_ms",
)
_REFUND_COLUMNS = (
    "id, idempotency_key, charge_id, amount, currency, created_ms, status, failure_reason, ref, payment_id,"
    " user_id, fingerprint"
)
_ADD_REFUNDS = _insert("refunds", _REFUND_COLUMNS)
_ADD_REPLIES = _insert("replies", "idempotency_key, params_hash, status, body")
_ADD_CALLS = """INSERT INTO calls (idempotency_key, calls) SELECT key, value FROM json_each(?) WHERE true
    ON CONFLICT (idempotency_key) DO UPDATE SET calls = calls + excluded.calls"""


class LedgerUnusable(Exception):
    """Raised when the ledger file cannot be opened for writing by this process alone."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A charge or refund with the reply that its key gets from now on."""

    made: Charge | Refund
    reply: Reply


class Ledger:
    """All charges of the gateway; used from one event loop, `open` before and `close` after everything.

    `charges`, `refunds` are in the order of commits, `replies`, `calls` (POSTs seen) by idempotency key.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.charges: list[Charge] = []
        self.refunds: list[Refund] = []
        self.replies: dict[str, Reply] = {}
        self.calls: dict[str, int] = {}
        self._positions: dict[str, int] = {}
        self._by_ref: dict[str, list[int]] = {}
        self._refund_positions: dict[str, int] = {}
        self._refunds_by_ref: dict[str, list[int]] = {}
        self._entries: list[tuple[Entry, asyncio.Future[None]]] = []
        self._new_calls: dict[str, int] = {}
        self._wake = asyncio.Event()
        self._failing = asyncio.Lock()
        self._closing = False
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="ledger")
        self._lock: IO[bytes] | None = None
        self._db: sqlite3.Connection | None = None
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
        db, self._db = self._db, None
        if db is not None:
            await asyncio.get_running_loop().run_in_executor(self._thread, db.close)
        self._let_go()

    def _let_go(self) -> None:
        self._thread.shutdown()
        if self._lock is not None:
            self._lock.close()

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
        async with self._failing:
            position = self._refund_positions[refund_id]
            refund = self.refunds[position]
            if refund.status != "succeeded":
                return refund
            run = asyncio.get_running_loop().run_in_executor
            await run(self._thread, self._commit_failure, refund_id, reason)
            failed = self.refunds[position] = replace(refund, status="failed", failure_reason=reason)
            self.charges[self._positions[refund.charge_id]].refunded -= refund.amount
            return failed

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
            await asyncio.get_running_loop().run_in_executor(self._thread, self._commit, entries, calls)
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
        if isinstance(made, Refund):
            self._index_refund(made)
        else:
            self._index(made)

    def _index_refund(self, refund: Refund) -> None:
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

    # From here on: inside the ledger's own thread.

    def _commit(self, entries: list[Entry], calls: dict[str, int]) -> None:
        db = self._db
        if db is None:
            raise LedgerUnusable(f"the ledger {self.path} is closed")
        charges = [_charge_row(e.made, e.reply) for e in entries if isinstance(e.made, Charge)]
        refunds = [_refund_row(e.made) for e in entries if isinstance(e.made, Refund)]
        replies = [_reply_row(e) for e in entries]
        db.execute("BEGIN IMMEDIATE")
        try:
            for statement, rows in (
                (_ADD_CHARGES, charges),
                (_ADD_REFUNDS, refunds),
                (_ADD_REPLIES, replies),
                (_ADD_CALLS, calls),
            ):
                if rows:
                    db.execute(statement, (orjson.dumps(rows).decode(),))
            db.execute("COMMIT")
        except BaseException:
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise

    def _commit_failure(self, refund_id: str, reason: str) -> None:
        if self._db is None:
            raise LedgerUnusable(f"the ledger {self.path} is closed")
        change = "UPDATE refunds SET status = 'failed', failure_reason = ? WHERE id = ?"
        self._db.execute(change, (reason, refund_id))

    def _open(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = self.path.with_name(self.path.name + ".lock").open("ab")
        if not lock(self._lock):
            raise LedgerUnusable(f"the ledger {self.path} is in use by another gateway simulator")
        db = self._db = sqlite3.connect(self.path, isolation_level=None, timeout=5)
        version = db.execute("PRAGMA user_version").fetchone()[0]
        if version not in (0, 1, SCHEMA_VERSION):
            raise LedgerUnusable(f"the ledger {self.path} has format {version}, known is {SCHEMA_VERSION}")
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = NORMAL")
        if version < SCHEMA_VERSION:
            change = _FROM_1 if version else _SCHEMA
            db.executescript(f"BEGIN;{change}PRAGMA user_version = {SCHEMA_VERSION};COMMIT;")
        db.execute("BEGIN IMMEDIATE")  # a read-only file shows here, not at the first charge
        db.execute("COMMIT")
        self._load(db)

    def _load(self, db: sqlite3.Connection) -> None:
        for row in db.execute(
            "SELECT id, idempotency_key, amount, currency, status, failure_code, payment_method, ref,"
            " payment_id, user_id, fingerprint, created_ms FROM charges ORDER BY seq"
        ):
            self._index(Charge(*row))
        for row in db.execute(f"SELECT {_REFUND_COLUMNS} FROM refunds ORDER BY seq"):  # noqa: S608 - constant
            self._index_refund(Refund(*row))
        for key, hashed, status, body in db.execute("SELECT * FROM replies"):
            self.replies[key] = Reply(hashed, status, body.encode())
        self.calls.update(db.execute("SELECT * FROM calls"))


def _charge_row(charge: Charge, reply: Reply) -> tuple[str | int | None, ...]:
    return (
        charge.id,
        charge.idempotency_key,
        reply.params_hash,
        charge.amount,
        charge.currency,
        charge.status,
        charge.failure_code,
        charge.payment_method,
        charge.ref,
        charge.payment_id,
        charge.user_id,
        charge.fingerprint,
        charge.created_ms,
    )


def _refund_row(refund: Refund) -> tuple[str | int | None, ...]:
    return (
        refund.id,
        refund.idempotency_key,
        refund.charge_id,
        refund.amount,
        refund.currency,
        refund.created_ms,
        refund.status,
        refund.failure_reason,
        refund.ref,
        refund.payment_id,
        refund.user_id,
        refund.fingerprint,
    )


def _reply_row(entry: Entry) -> tuple[str | int, ...]:
    reply = entry.reply
    return (entry.made.idempotency_key, reply.params_hash, reply.status, reply.body.decode())
