"""Loads settlement files into the kept lines: each file, each line of a gateway, once."""

from __future__ import annotations

import csv
import hashlib
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import IO, Final

from streamsocial_billing.reconciliation.errors import InputRefused
from streamsocial_billing.reconciliation.settlement import paypal, simple, stripe
from streamsocial_billing.reconciliation.settlement.lines import Line, Rows, refused
from streamsocial_billing.reconciliation.store import ADD_LINE, insert_many

FORMATS: Final[dict[str, ModuleType]] = {"simple": simple, "stripe": stripe, "paypal": paypal}
MAX_LINE_BYTES: Final = 1_000_000
TICK_LINES: Final = 10_000
Tick = Callable[[int], None]
"""Told how many lines were read so far."""


def load(db: sqlite3.Connection, path: Path, tick: Tick = lambda _: None) -> bool:
    """Load one file inside the caller's transaction; False if it was loaded before.

    Raises InputRefused, with the file's name and the line, for anything that cannot be right.
    """
    name = path.name
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            if db.execute("SELECT 1 FROM kept.files WHERE hash = ?", (digest,)).fetchone():
                return False
            file.seek(0)
            _load(db, file, name, digest, tick)
    except OSError as error:
        raise InputRefused(f"{path}: {error.strerror or error}") from None
    return True


def _load(db: sqlite3.Connection, file: IO[bytes], name: str, digest: str, tick: Tick) -> None:
    rows = _rows(file, name)
    first = next(rows, None)
    if first is None:
        raise InputRefused(f"{name}: the file is empty")
    number, header = first
    format_ = next((one for one, reader in FORMATS.items() if reader.recognises(header)), None)
    if format_ is None:
        known = ", ".join(FORMATS)
        raise refused(name, number, f"the header is of none of the formats that are known ({known})")
    row = db.execute(
        "INSERT INTO kept.files (hash, name, format, lines) VALUES (?, ?, ?, 0)", (digest, name, format_)
    )
    file_id = row.lastrowid or 0
    lines = FORMATS[format_].read(_again(first, rows), name)
    count = _insert(db, file_id, lines, name, tick)
    if count == 0:
        raise InputRefused(f"{name}: the file has no lines")
    db.execute("UPDATE kept.files SET lines = ? WHERE id = ?", (count, file_id))


def _insert(
    db: sqlite3.Connection, file_id: int, lines: Iterator[tuple[int, Line]], name: str, tick: Tick
) -> int:
    """Write the lines; one that an earlier file had is left out if it is the same, refused if it differs."""

    def rows() -> Iterator[tuple[object, ...]]:
        for count, (number, line) in enumerate(lines, 1):
            if count % TICK_LINES == 0:
                tick(count)
            kind, gateway, line_id, *rest = line
            yield file_id, number, gateway, line_id, kind, *rest

    db.execute("CREATE TEMP TABLE incoming AS SELECT * FROM kept.lines LIMIT 0")
    count = insert_many(db, ADD_LINE.replace("kept.lines", "temp.incoming"), rows())
    for number, _, line_id in db.execute(_TWICE):
        raise refused(name, number, f"{line_id} stands in the file a second time")
    for number, line_id, other in db.execute(_DIFFERS):
        raise refused(name, number, f"{line_id} differs from what {other} says")
    db.execute(_KEEP)
    db.execute("DROP TABLE temp.incoming")
    return count


_FIELDS: Final = (
    "file, place, gateway, line_id, kind, gateway_ref, charge_ref, ref, gross, fee, net, currency,"
    " payout_id, at"
)
_TWICE: Final = """
SELECT max(place), gateway, line_id FROM temp.incoming WHERE line_id IS NOT NULL
GROUP BY gateway, line_id HAVING count(*) > 1 ORDER BY 1 LIMIT 1"""
_DIFFERS: Final = """
SELECT i.place, i.line_id, f.name FROM temp.incoming i
JOIN kept.lines l ON l.gateway = i.gateway AND l.line_id = i.line_id JOIN kept.files f ON f.id = l.file
WHERE l.kind <> i.kind OR l.gross <> i.gross OR l.net <> i.net OR l.currency <> i.currency
ORDER BY i.place LIMIT 1"""
_KEEP: Final = f"INSERT OR IGNORE INTO kept.lines ({_FIELDS}) SELECT {_FIELDS} FROM temp.incoming"  # noqa: S608


def _rows(file: IO[bytes], name: str) -> Rows:
    """Cells with their line numbers; refuses what is not UTF-8 (a BOM is fine) or not CSV."""
    reader = csv.reader(_texts(file, name), strict=True)
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise refused(name, reader.line_num, f"{error}: is the file cut off?") from None
        if cells:
            yield reader.line_num, cells


def _texts(file: IO[bytes], name: str) -> Iterator[str]:
    number = 0
    while raw := file.readline(MAX_LINE_BYTES + 1):
        number += 1
        if len(raw) > MAX_LINE_BYTES:
            raise refused(name, number, f"longer than {MAX_LINE_BYTES} bytes")
        try:
            text = raw.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise refused(name, number, f"not UTF-8 (byte {error.start + 1} of the line)") from None
        if "\0" in text:
            raise refused(name, number, "a zero byte: not a text file in UTF-8")
        yield text


def _again(first: tuple[int, list[str]], rows: Rows) -> Rows:
    yield first
    yield from rows
