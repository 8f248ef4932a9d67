"""Loads settlement files into the kept lines: each file, each line of a gateway, once."""

from __future__ import annotations

import csv
import hashlib
import re
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import IO, Final

from streamsocial_billing.gateways.errors import InputRefused
from streamsocial_billing.gateways.paypal import settlement as paypal
from streamsocial_billing.gateways.settlement_lines import Line, Reading, Rows, refused
from streamsocial_billing.gateways.settlement_parts import KeptParts, PartsMissing
from streamsocial_billing.gateways.stripe import settlement as stripe
from streamsocial_billing.reconciliation.settlement import simple
from streamsocial_billing.reconciliation.store import ADD_LINE, insert_many

MAX_LINE_BYTES: Final = 1_000_000
TICK_LINES: Final = 10_000
DELIMITERS: Final = ",;\t"
_UNFIT: Final = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]|\r(?!\n)"
)
Tick = Callable[[int], None]
"""Told how many lines were read so far."""


def load_all(
    db: sqlite3.Connection, paths: Sequence[Path], reading: Reading | None = None,
    begins: Callable[[Path], Tick] = lambda _: lambda _: None,
) -> list[str]:  # fmt: skip
    """Load files in any order; returns the names of those that were loaded before. Raises InputRefused.

    The last file of a report that is split over several counts all of them, so it waits for the others.
    """
    repeated, waiting = [], []
    for path in paths:
        try:
            if not load(db, path, begins(path), reading):
                repeated.append(path.name)
        except PartsMissing:
            waiting.append(path)
    for path in waiting:
        load(db, path, begins(path), reading)
    return repeated


def load(
    db: sqlite3.Connection, path: Path, tick: Tick = lambda _: None, reading: Reading | None = None
) -> bool:
    """Load one file inside the caller's transaction; False if it was loaded before.

    Raises InputRefused, with the file's name and the line, for anything that cannot be right: the caller
    rolls back. PartsMissing (one of these) where other files of the same report come first: then nothing of
    the file is there.
    """
    name = path.name
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            if db.execute("SELECT 1 FROM kept.files WHERE hash = ?", (digest,)).fetchone():
                return False
            file.seek(0)
            _load(
                db=db, file=file, name=name, digest=digest, tick=tick, reading=replace(reading or Reading()),
            )  # fmt: skip
    except OSError as error:
        raise InputRefused(f"{path}: {error.strerror or error}") from None
    return True


def _load(
    db: sqlite3.Connection, file: IO[bytes], name: str, digest: str, tick: Tick, reading: Reading
) -> None:
    rows = _rows(file, name)
    first = next(rows, None)
    if first is None:
        raise InputRefused(f"{name}: the file is empty")
    number, header = first
    everything = chain([first], rows)
    if simple.recognises(header):
        format_, lines = "simple", simple.read(everything, name, reading)
    elif stripe.recognises(header):
        format_, lines = "stripe", stripe.read(everything, name, reading)
    elif paypal.recognises(header):
        format_, lines = "paypal", paypal.read(everything, name, KeptParts(db))
    else:
        why = "the header is of none of the formats that are known (simple, stripe, paypal)"
        raise refused(name, number, why)
    row = db.execute(
        "INSERT INTO kept.files (hash, name, format, lines) VALUES (?, ?, ?, 0)", (digest, name, format_)
    )
    file_id = row.lastrowid or 0
    try:
        count = _insert(db, file_id, lines, name, tick)
    except PartsMissing:  # raised while lines are read, before any is kept
        db.execute("DELETE FROM kept.files WHERE id = ?", (file_id,))
        raise
    if count == 0 and format_ != "paypal":  # whose own count says that nothing happened that day
        raise InputRefused(f"{name}: the file has no lines")
    db.execute("UPDATE kept.files SET lines = ? WHERE id = ?", (count, file_id))


def _insert(
    db: sqlite3.Connection, file_id: int, lines: Iterator[tuple[int, Line]], name: str, tick: Tick
) -> int:
    """Write the lines; one that an earlier file had is filled in if it is the same, refused if it differs."""

    def rows() -> Iterator[tuple[object, ...]]:
        for count, (number, line) in enumerate(lines, 1):
            if count % TICK_LINES == 0:
                tick(count)
            kind, gateway, line_id, *rest = line
            yield file_id, number, gateway, line_id, kind, *rest

    db.execute("DROP TABLE IF EXISTS temp.incoming")
    db.execute("DROP TABLE IF EXISTS temp.same")
    db.execute("CREATE TEMP TABLE incoming AS SELECT * FROM kept.lines LIMIT 0")
    count = insert_many(db, ADD_LINE.replace("kept.lines", "temp.incoming"), rows())
    for number, _, line_id in db.execute(_TWICE):
        raise refused(name, number, f"{line_id} stands in the file a second time")
    db.execute(_SAME)
    for number, line_id, other in db.execute(_DIFFERS):
        raise refused(name, number, f"{line_id} differs from what {other} says")
    for number, line_id, payout, other, kept in db.execute(_OTHER_PAYOUT):
        why = f"{line_id} is of payout {payout}, {other} says of {kept}"
        raise refused(name, number, why)
    db.execute(_READ_AGAIN)
    db.execute(_FILL_IN)
    db.execute("DROP TABLE temp.same")
    db.execute(_KEEP)
    db.execute("DROP TABLE temp.incoming")
    return count


_FIELDS: Final = (
    "file, place, gateway, line_id, kind, gateway_ref, charge_ref, ref, gross, fee, net, currency,"
    " payout_id, at, facing, facing_currency"
)
_TWICE: Final = """
SELECT max(place), gateway, line_id FROM temp.incoming WHERE line_id IS NOT NULL
GROUP BY gateway, line_id HAVING count(*) > 1 ORDER BY 1 LIMIT 1"""
_SAME: Final = """
CREATE TEMP TABLE same AS SELECT i.rowid AS new, l.id AS old FROM temp.incoming i
JOIN kept.lines l ON l.gateway = i.gateway AND l.line_id = i.line_id WHERE i.line_id IS NOT NULL"""
_BOTH: Final = """temp.same s JOIN temp.incoming i ON i.rowid = s.new JOIN kept.lines l ON l.id = s.old
JOIN kept.files f ON f.id = l.file"""
_DIFFERS: Final = f"""
SELECT i.place, i.line_id, f.name FROM {_BOTH}
WHERE l.currency <> i.currency OR CASE f.read_as WHEN 1 THEN abs(l.gross) <> abs(i.gross)
    ELSE l.kind <> i.kind OR l.gross <> i.gross OR l.net <> i.net END
ORDER BY i.place LIMIT 1"""  # noqa: S608
_OTHER_PAYOUT: Final = f"""
SELECT i.place, i.line_id, i.payout_id, f.name, l.payout_id FROM {_BOTH}
WHERE l.payout_id <> i.payout_id ORDER BY i.place LIMIT 1"""  # noqa: S608
# an export may be older than the payout of its lines, or have fewer columns
_FILL_IN: Final = """
UPDATE kept.lines SET payout_id = coalesce(lines.payout_id, i.payout_id),
    gateway_ref = coalesce(lines.gateway_ref, i.gateway_ref), ref = coalesce(lines.ref, i.ref),
    charge_ref = coalesce(lines.charge_ref, i.charge_ref), facing = coalesce(lines.facing, i.facing),
    facing_currency = coalesce(lines.facing_currency, i.facing_currency)
FROM temp.same s JOIN temp.incoming i ON i.rowid = s.new WHERE lines.id = s.old"""
# an earlier release took some for another kind, payouts for reversals, fees of payouts for parts of them
_READ_AGAIN: Final = """
UPDATE kept.lines SET kind = i.kind, gross = i.gross, fee = i.fee, net = i.net, payout_id = i.payout_id,
    gateway_ref = i.gateway_ref, charge_ref = i.charge_ref, ref = i.ref, file = i.file, place = i.place
FROM temp.same s JOIN temp.incoming i ON i.rowid = s.new
WHERE lines.id = s.old AND lines.file IN (SELECT id FROM kept.files WHERE read_as = 1)
    AND (lines.kind <> i.kind OR lines.gross <> i.gross OR lines.net <> i.net)"""
_KEEP: Final = f"INSERT OR IGNORE INTO kept.lines ({_FIELDS}) SELECT {_FIELDS} FROM temp.incoming"  # noqa: S608


def _rows(file: IO[bytes], name: str) -> Rows:
    """Cells with their line numbers; refuses what is not UTF-8 (a BOM is fine) or not CSV.

    The delimiter is the one that the first line has most of.
    """
    texts = _texts(file, name)
    first = next(texts, "")
    delimiter = max(DELIMITERS, key=first.count)
    reader = csv.reader(chain([first], texts), strict=True, delimiter=delimiter)
    header: list[str] = []
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise refused(name, reader.line_num, f"{error}: is the file cut off?") from None
        if any(cells):
            header = header or cells
            _check_signs(name, reader.line_num, header, cells)
            yield reader.line_num, cells


def _check_signs(name: str, number: int, header: list[str], cells: list[str]) -> None:
    """Refuse what no export has: signs that command a terminal or a spreadsheet, or turn the writing around.

    Line ends and tabs are let through where they are part of a text in quotes.
    """
    if _UNFIT.search("".join(cells)) is None:
        return
    for place, cell in enumerate(cells):
        found = _UNFIT.search(cell)
        if found is not None:
            named = place < len(header) and cells is not header and header[0] != "RH"  # PayPal's begins so
            title = f" ({ascii(header[place][:40])[1:-1]})" if named else ""
            what = f"a control character, U+{ord(found[0]):04X}"
            raise refused(name, number, f"column {place + 1}{title} holds {what}: is the file damaged?")


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
