"""The working store of a run: the legs side by side in SQLite, on disk.

Nothing here is kept but the settlement lines (`kept`): they are in a file of their own, as a settlement file
is loaded once and counts in every later run. A transaction that ends badly leaves that file as it was.
"""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from streamsocial_billing.domain.money import EXPONENTS
from streamsocial_billing.gateways.errors import InputRefused
from streamsocial_billing.locks import lock

CACHE_KIB: Final = 64 * 1024
"""Pages that SQLite may hold in memory, for both files together about twice that."""
BATCH_ROWS: Final = 5000
KEPT_VERSION: Final = 2
KEPT_NAME: Final = "settlements.sqlite"

# a  our books, one row for each payment (or external movement)      b  the gateway's list
# l  settlement lines (kept)         lm  which b or a a line belongs to
# ref is a reference of ours everywhere (domain/references.py), or NULL: `ref IS NOT NULL` says so in SQL
# b.charge_key: the charge's reference that a refund or dispute bears; b.ours: it bears one, is in our books,
# or its charge is; intent_charge: of a charge by an intent (gateway_ref) its own id; waiting: open payments
# whose intent waits for its customer; returned: what came back of amount; breaks.event: a list of the records
# that repair it
_WORK: Final = """
CREATE TABLE a (
    id INTEGER PRIMARY KEY, fold TEXT NOT NULL, user_id TEXT NOT NULL, payment_id TEXT, action TEXT NOT NULL,
    gateway TEXT NOT NULL, status TEXT NOT NULL, reason TEXT, amount INTEGER NOT NULL, currency TEXT NOT NULL,
    gateway_ref TEXT, ref TEXT, at INTEGER NOT NULL, moved INTEGER NOT NULL, origin TEXT NOT NULL,
    refund_of TEXT, intent_charge TEXT, b INTEGER, twin INTEGER, returned INTEGER NOT NULL DEFAULT 0);
CREATE TABLE b (
    id INTEGER PRIMARY KEY, gateway TEXT NOT NULL, gateway_ref TEXT NOT NULL, kind TEXT NOT NULL,
    status TEXT NOT NULL, amount INTEGER NOT NULL, currency TEXT NOT NULL, created INTEGER NOT NULL,
    ref TEXT, payment_id TEXT, user_id TEXT, charge_ref TEXT, fee INTEGER, returned INTEGER NOT NULL,
    charge_key TEXT, ours INTEGER NOT NULL, intent_charge TEXT, dispute INTEGER, a INTEGER);
CREATE TABLE observed (
    payment TEXT PRIMARY KEY, user_id TEXT, payment_id TEXT, gateway TEXT, gateway_ref TEXT, action TEXT,
    seen TEXT, amount INTEGER, currency TEXT, at INTEGER);
CREATE TABLE parked (payment TEXT PRIMARY KEY);
CREATE TABLE waiting (payment TEXT PRIMARY KEY);
CREATE TABLE told (gateway TEXT, gateway_ref TEXT, PRIMARY KEY (gateway, gateway_ref)) WITHOUT ROWID;
CREATE TABLE lm (line INTEGER PRIMARY KEY, b INTEGER, a INTEGER);
CREATE TABLE breaks (
    id TEXT PRIMARY KEY, class TEXT NOT NULL, gateway TEXT NOT NULL, currency TEXT NOT NULL,
    at_stake INTEGER NOT NULL, since INTEGER NOT NULL, open INTEGER NOT NULL, body TEXT NOT NULL,
    event TEXT) WITHOUT ROWID;
"""
_KEPT: Final = """
CREATE TABLE kept.files (
    id INTEGER PRIMARY KEY, hash TEXT NOT NULL UNIQUE, name TEXT NOT NULL, format TEXT NOT NULL,
    lines INTEGER NOT NULL, read_as INTEGER NOT NULL DEFAULT 2);
CREATE TABLE kept.lines (
    id INTEGER PRIMARY KEY, file INTEGER NOT NULL, place INTEGER NOT NULL, gateway TEXT NOT NULL,
    line_id TEXT, kind TEXT NOT NULL, gateway_ref TEXT, charge_ref TEXT, ref TEXT, gross INTEGER NOT NULL,
    fee INTEGER NOT NULL, net INTEGER NOT NULL, currency TEXT NOT NULL, payout_id TEXT, at INTEGER NOT NULL,
    facing INTEGER, facing_currency TEXT);
CREATE UNIQUE INDEX kept.line_names ON lines (gateway, line_id) WHERE line_id IS NOT NULL;
"""
_KEPT_SINCE_2: Final = """
CREATE TABLE kept.parts (report TEXT NOT NULL, number INTEGER NOT NULL, sums TEXT NOT NULL,
    PRIMARY KEY (report, number)) WITHOUT ROWID;
"""
_WHOLE: Final = sorted(code for code, exponent in EXPONENTS.items() if exponent == 0)
_FROM_1: Final = f"""
ALTER TABLE kept.files ADD COLUMN read_as INTEGER NOT NULL DEFAULT 2;
UPDATE kept.files SET read_as = 1;
UPDATE kept.lines SET kind = 'conversion' WHERE gateway = 'paypal' AND kind = 'adjustment'
    AND (line_id LIKE '%:T0200' OR line_id LIKE '%:T0201');
ALTER TABLE kept.lines ADD COLUMN facing INTEGER;
ALTER TABLE kept.lines ADD COLUMN facing_currency TEXT;
UPDATE kept.lines SET gateway_ref = NULL
    WHERE gateway = 'stripe' AND kind IN ('refund', 'dispute') AND gateway_ref = charge_ref;
UPDATE kept.lines SET ref = NULL WHERE ref NOT GLOB 'ss1_{"[0-9a-f]" * 56}';
UPDATE kept.lines SET line_id = line_id || ':' || currency
    WHERE gateway = 'paypal' AND (line_id LIKE '%:T0200' OR line_id LIKE '%:T0201');
UPDATE kept.lines SET gross = gross / 100, fee = fee / 100, net = net / 100
    WHERE gateway = 'paypal' AND currency IN ({", ".join(f"'{code}'" for code in _WHOLE)})
    AND file IN (SELECT id FROM kept.files WHERE format = 'paypal');
UPDATE kept.lines AS p SET gateway_ref = payout_id, payout_id = NULL
    WHERE gateway = 'stripe' AND kind = 'payout' AND line_id NOT LIKE 'payout:%' AND NOT EXISTS (
        SELECT 1 FROM kept.lines l WHERE l.gateway = 'stripe' AND l.kind <> 'payout'
            AND l.payout_id = p.payout_id);
{_KEPT_SINCE_2}
"""  # noqa: S608 - constants
"""Of an earlier release: references of others kept as if they were ours, PayPal's yen a hundredfold, Stripe's
manual payouts as if they named their lines. `files.read_as`: the format under which a file was read."""


@contextmanager
def opened(output: Path) -> Iterator[sqlite3.Connection]:
    """The store of one run in `output`, inside a transaction; it is rolled back unless `commit` was called.

    Raises InputRefused if another run is at work there, or the kept file is not ours.
    """
    output.mkdir(parents=True, exist_ok=True)
    with (output / ".lock").open("ab") as held, tempfile.TemporaryDirectory(dir=output, prefix=".run-") as at:
        if not lock(held):
            raise InputRefused(f"another run is at work in {output}: wait for it")
        db = sqlite3.connect(Path(at) / "work.sqlite", isolation_level=None)
        try:
            _open(db, output / KEPT_NAME)
            yield db
        except sqlite3.OperationalError as error:
            raise InputRefused(f"the work in {output} cannot go on: {error}") from error
        finally:
            db.close()


def in_memory() -> sqlite3.Connection:
    """A store for tests of the matching alone."""
    db = sqlite3.connect(":memory:", isolation_level=None)
    db.execute("ATTACH ':memory:' AS kept")
    db.executescript(_WORK + _KEPT + _KEPT_SINCE_2)
    return db


def _open(db: sqlite3.Connection, kept: Path) -> None:
    db.execute("PRAGMA main.journal_mode = OFF")
    db.execute("PRAGMA main.synchronous = OFF")
    db.execute(f"PRAGMA main.cache_size = -{CACHE_KIB}")
    db.execute("PRAGMA temp_store = FILE")  # the sorter spills to disk
    db.execute("ATTACH ? AS kept", (str(kept),))
    db.execute(f"PRAGMA kept.cache_size = -{CACHE_KIB}")
    version = db.execute("PRAGMA kept.user_version").fetchone()[0]
    if not 0 <= version <= KEPT_VERSION:
        raise InputRefused(f"{kept} has format {version}, known is {KEPT_VERSION}: use another --output")
    if version < KEPT_VERSION:
        change = _FROM_1 if version == 1 else _KEPT + _KEPT_SINCE_2
        db.executescript(f"BEGIN;{change}PRAGMA kept.user_version = {KEPT_VERSION};COMMIT;")
    db.executescript(_WORK)
    db.execute("BEGIN")


def insert_many(db: sqlite3.Connection, statement: str, rows: Iterable[tuple[Any, ...]]) -> int:
    """Write rows in batches, so that no more than BATCH_ROWS are held; returns how many."""
    count, batch = 0, []
    for row in rows:
        batch.append(row)
        if len(batch) == BATCH_ROWS:
            db.executemany(statement, batch)
            count, batch = count + len(batch), []
    db.executemany(statement, batch)
    return count + len(batch)


ADD_A: Final = (
    "INSERT INTO a (fold, user_id, payment_id, action, gateway, status, reason, amount, currency,"
    " gateway_ref, ref, at, moved, origin, refund_of, intent_charge)"
    " VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)"
)
ADD_B: Final = (
    "INSERT INTO b (gateway, gateway_ref, kind, status, amount, currency, created, ref, payment_id, user_id,"
    " charge_ref, fee, returned, charge_key, ours, intent_charge)"
    " VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)"
)
ADD_LINE: Final = (
    "INSERT INTO kept.lines (file, place, gateway, line_id, kind, gateway_ref, charge_ref, ref, gross, fee,"
    " net, currency, payout_id, at, facing, facing_currency) VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)"
)
