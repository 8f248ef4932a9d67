"""The SQLite file of the simulated gateway's ledger: its format, what is written into it, what it holds."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import IO

import orjson

from streamsocial_billing.gateways.simulator.intents import Intent
from streamsocial_billing.gateways.simulator.shapes import Charge, Refund, Reply
from streamsocial_billing.locks import lock

SCHEMA_VERSION = 2

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

_INTENTS = """
CREATE TABLE IF NOT EXISTS intents (
    seq INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, idempotency_key TEXT NOT NULL UNIQUE,
    amount INTEGER NOT NULL, currency TEXT NOT NULL, payment_method TEXT NOT NULL,
    created_ms INTEGER NOT NULL, status TEXT NOT NULL, error TEXT, charge_id TEXT, ref TEXT, payment_id TEXT,
    user_id TEXT, fingerprint TEXT);
"""
"""Beside format 2: a release that knows no intents reads the charges that they made, and goes on."""

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
_INTENT_COLUMNS = (
    "id, idempotency_key, amount, currency, payment_method, created_ms, status, error, charge_id, ref,"
    " payment_id, user_id, fingerprint"
)
_ADD_INTENTS = _insert("intents", _INTENT_COLUMNS)
_ADD_REPLIES = _insert("replies", "idempotency_key, params_hash, status, body")
_ADD_CALLS = """INSERT INTO calls (idempotency_key, calls) SELECT key, value FROM json_each(?) WHERE true
    ON CONFLICT (idempotency_key) DO UPDATE SET calls = calls + excluded.calls"""


class LedgerUnusable(Exception):
    """Raised when the ledger file cannot be opened for writing by this process alone."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A charge, refund or intent with the reply that its key gets from now on."""

    made: Charge | Refund | Intent
    reply: Reply


class LedgerFile:
    """The file, used from one thread alone; `let_go` may be called from any."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock: IO[bytes] | None = None
        self._db: sqlite3.Connection | None = None

    def open(self) -> None:
        """Open or make the file; raises LedgerUnusable, OSError, sqlite3.Error."""
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
        db.execute(_INTENTS)
        db.execute("BEGIN IMMEDIATE")  # a read-only file shows here, not at the first charge
        db.execute("COMMIT")

    def close(self) -> None:
        """Close the file; nothing can be written any more."""
        db, self._db = self._db, None
        if db is not None:
            db.close()

    def let_go(self) -> None:
        """Give up the lock."""
        if self._lock is not None:
            self._lock.close()

    def made(self) -> Iterator[Charge | Refund | Intent]:
        """Every charge, then every intent, then every refund, in the order of commits."""
        db = self._opened()
        for row in db.execute(
            "SELECT id, idempotency_key, amount, currency, status, failure_code, payment_method, ref,"
            " payment_id, user_id, fingerprint, created_ms FROM charges ORDER BY seq"
        ):
            yield Charge(*row)
        for row in db.execute(f"SELECT {_INTENT_COLUMNS} FROM intents ORDER BY seq"):  # noqa: S608 - constant
            yield Intent(*row)
        for row in db.execute(f"SELECT {_REFUND_COLUMNS} FROM refunds ORDER BY seq"):  # noqa: S608 - constant
            yield Refund(*row)

    def replies(self) -> Iterator[tuple[str, Reply]]:
        """Each idempotency key with the reply that it gets."""
        for key, hashed, status, body in self._opened().execute("SELECT * FROM replies"):
            yield key, Reply(hashed, status, body.encode())

    def calls(self) -> Iterator[tuple[str, int]]:
        """Each idempotency key with its POSTs."""
        yield from self._opened().execute("SELECT * FROM calls")

    def commit(self, entries: list[Entry], calls: dict[str, int]) -> None:
        """Write a whole group in one transaction; after an error nothing of it is there."""
        db = self._opened()
        charges = [_charge_row(e.made, e.reply.params_hash) for e in entries if isinstance(e.made, Charge)]
        refunds = [_refund_row(e.made) for e in entries if isinstance(e.made, Refund)]
        intents = [_intent_row(e.made) for e in entries if isinstance(e.made, Intent)]
        replies = [_reply_row(e) for e in entries]
        with _transaction(db):
            for statement, rows in (
                (_ADD_CHARGES, charges),
                (_ADD_REFUNDS, refunds),
                (_ADD_INTENTS, intents),
                (_ADD_REPLIES, replies),
                (_ADD_CALLS, calls),
            ):
                if rows:
                    db.execute(statement, (orjson.dumps(rows).decode(),))

    def commit_failure(self, refund_id: str, reason: str) -> None:
        """Write that a refund failed."""
        change = "UPDATE refunds SET status = 'failed', failure_reason = ? WHERE id = ?"
        self._opened().execute(change, (reason, refund_id))

    def commit_change(self, intent: Intent, charge: Charge | None) -> None:
        """Write what an intent has become, with the charge that it made, in one transaction."""
        db = self._opened()
        change = "UPDATE intents SET status = ?, error = ?, charge_id = ? WHERE id = ?"
        with _transaction(db):
            if charge is not None:
                db.execute(_ADD_CHARGES, (orjson.dumps([_charge_row(charge, "")]).decode(),))
            db.execute(change, (intent.status, intent.error, intent.charge_id, intent.id))

    def _opened(self) -> sqlite3.Connection:
        if self._db is None:
            raise LedgerUnusable(f"the ledger {self.path} is closed")
        return self._db


@contextmanager
def _transaction(db: sqlite3.Connection) -> Iterator[None]:
    """All of it or nothing."""
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise


def _charge_row(charge: Charge, params_hash: str) -> tuple[str | int | None, ...]:
    return (
        charge.id,
        charge.idempotency_key,
        params_hash,
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


def _intent_row(intent: Intent) -> tuple[str | int | None, ...]:
    return astuple(intent)


def _reply_row(entry: Entry) -> tuple[str | int, ...]:
    reply = entry.reply
    return (entry.made.idempotency_key, reply.params_hash, reply.status, reply.body.decode())
