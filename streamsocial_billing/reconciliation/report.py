"""What a run says: the summary as data, the breaks as CSV. Nothing in it depends on the clock."""

from __future__ import annotations

import csv
import os
import re
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final

import orjson
from msgspec import Struct, to_builtins

from streamsocial_billing.domain.events import Ms
from streamsocial_billing.domain.money import MINUS, format_minor, shown_amount
from streamsocial_billing.domain.times import iso_to_the_second
from streamsocial_billing.reconciliation.breaks import CLASSES, DAY_MS, age_bucket
from streamsocial_billing.reconciliation.bridge import Bridge
from streamsocial_billing.reconciliation.unchecked import NotChecked

FORMAT: Final = 1
_FORMULA: Final = re.compile(
    "((?:^|[,;|\"'\t\r\n\v\f\x85\u2028\u2029])[\\s\x00-\x1f\x7f-\x9f\u200b-\u200f\u2060\ufeff\"]*)"
    "([=+\\-@\uff1d\uff0b\uff0d\uff20\ufe66\ufe62\ufe63\ufe6b])"
)
"""Where a cell begins, or may for a spreadsheet of another country, and what makes a formula of it."""
COLUMNS: Final = (
    "id", "class", "open", "gateway", "kind", "currency", "at_stake", "ours", "theirs", "settled", "user_id",
    "payment_id", "gateway_ref", "payout_id", "since", "age_days", "tags", "detail", "action",
)  # fmt: skip
_ORDER: Final = "CASE class " + " ".join(f"WHEN '{one}' THEN {at}" for at, one in enumerate(CLASSES)) + " END"
BREAKS_IN_ORDER: Final = f"SELECT body FROM breaks ORDER BY open DESC, {_ORDER}, since, id"  # noqa: S608
_BY_CURRENCY: Final = """
SELECT currency, count(*), sum(at_stake), min(since) FROM breaks WHERE class = ? GROUP BY 1"""
_BY_AGE: Final = "SELECT max(0, ? - since) / ?, count(*) FROM breaks WHERE class = ? GROUP BY 1"


@dataclass(frozen=True, slots=True)
class Found:
    """Breaks of one class: how many, minor units at stake by currency, counts by age, the oldest (ms)."""

    count: int
    money: dict[str, int]
    ages: dict[str, int]
    oldest: int | None


class RunRecord(Struct, frozen=True, kw_only=True):
    """The record `run` on `reconciliation-breaks`: what the last run counted.

    as_of   the moment that ageing counts to, ms since the epoch
    legs    how many records each leg had
    breaks  by class: count, minor units at stake by currency, counts by age, the oldest (ms)
    not_checked  what our side has of gateways that are not set up
    """

    format: int
    as_of: Ms
    clean: bool
    open_breaks: int
    legs: dict[str, int]
    breaks: dict[str, dict[str, Any]]
    not_checked: list[dict[str, Any]] = []


@dataclass(frozen=True, slots=True)
class Summary:
    """What a run found.

    header    of what it is: as_of, since, offsets of the cut, files; JSON
    legs      how many records each leg had
    found     by class; classes without a break are left out
    not_ours  what bears no reference of ours, counted (not_ours.py)
    not_checked  what our side has of gateways that are not set up here
    """

    header: dict[str, Any]
    legs: dict[str, int]
    found: dict[str, Found]
    bridges: list[Bridge]
    not_ours: list[dict[str, Any]] = field(default_factory=list)
    not_checked: list[NotChecked] = field(default_factory=list)

    @property
    def as_of(self) -> int:
        """The moment that ageing counts to, ms since the epoch."""
        return int(self.header["as_of"])

    @property
    def open(self) -> int:
        """How many breaks are open."""
        return sum(one.count for name, one in self.found.items() if name != "timing")

    @property
    def clean(self) -> bool:
        """True if nothing is open, as far as it was checked (`not_checked`)."""
        return self.open == 0

    def as_json(self) -> dict[str, Any]:
        """`summary.json`."""
        return {
            "format": FORMAT, **self.header, "legs": self.legs, "clean": self.clean, "open_breaks": self.open,
            "breaks": {
                name: {"count": one.count, "money": one.money, "ages": one.ages, "oldest": one.oldest}
                for name, one in self.found.items()
            },
            "bridge": [
                {"gateway": one.gateway, "currency": one.currency, "settled": one.settled, **one.amounts}
                for one in self.bridges
            ],
            "not_ours": self.not_ours,
            "not_checked": [one.as_json() for one in self.not_checked],
        }  # fmt: skip

    def as_record(self) -> dict[str, Any]:
        """The record `run` on `reconciliation-breaks`."""
        fields = self.as_json()
        record = RunRecord(**{name: fields[name] for name in RunRecord.__struct_fields__})
        said: dict[str, Any] = to_builtins(record)
        return said


def count_breaks(db: sqlite3.Connection, as_of: int) -> dict[str, Found]:
    """The breaks by class, in the order of CLASSES."""
    counts: dict[str, Found] = {}
    for name in CLASSES:
        rows = db.execute(_BY_CURRENCY, (name,)).fetchall()
        if not rows:
            continue
        ages: dict[str, int] = {}
        for days, count in db.execute(_BY_AGE, (as_of, DAY_MS, name)):
            ages[age_bucket(days)] = ages.get(age_bucket(days), 0) + count
        money = {currency: amount for currency, _, amount, _ in sorted(map(tuple, rows))}
        counts[name] = Found(sum(one[1] for one in rows), money, ages, min(one[3] for one in rows))
    return counts


def breaks_in_order(db: sqlite3.Connection) -> Iterator[dict[str, Any]]:
    """Every break as on the topic: open ones first, by class, the oldest first."""
    for (body,) in db.execute(BREAKS_IN_ORDER):
        yield orjson.loads(body)


def write_csv(db: sqlite3.Connection, file: IO[str]) -> None:
    """`breaks.csv`: amounts in major units, times in UTC."""
    out = csv.writer(file, lineterminator="\n", quoting=csv.QUOTE_ALL)
    out.writerow(COLUMNS)
    for one in breaks_in_order(db):
        money = {name: _major(one[f"{name}_minor"], one["currency"])
                 for name in ("at_stake", "ours", "theirs", "settled")}  # fmt: skip
        row = one | money | {
            "open": "yes" if one["open"] else "no", "since": iso_to_the_second(one["since"]),
            "tags": " ".join(one["tags"]),
        }  # fmt: skip
        out.writerow([_cell(name, row[name]) for name in COLUMNS])


def _cell(name: str, value: Any) -> Any:
    """A text from outside must not be a formula in the spreadsheet that opens the file.

    Nor where it takes another sign for the end of a cell; its amounts are ours.
    """
    if isinstance(value, str) and name not in ("at_stake", "ours", "theirs", "settled"):
        return _FORMULA.sub(r"\1'\2", value)
    return value


def _major(amount: int | None, currency: str) -> str:
    return "" if amount is None else format_minor(amount, currency).split(" ")[0]


def not_checked_text(one: NotChecked) -> str:
    """What was not checked of a gateway, in one line."""
    payments = f"{one.payments:,} {'payment' if one.payments == 1 else 'payments'} in our books"
    lines = f"{one.lines:,} settlement {'line' if one.lines == 1 else 'lines'}"
    money = (f"{shown_amount(amount, code, MINUS)} {code} charged" for code, amount in one.money.items())
    about = ", ".join([*([payments] if one.payments else []), *money, *([lines] if one.lines else [])])
    return f"not checked: {one.gateway} is not set up here ({about})"


def write_file(path: Path, write: Callable[[IO[str]], None]) -> None:
    """Write a file beside its place, then move it there: a reader never sees half of it."""
    beside = path.with_name(f".{path.name}.new")
    with beside.open("w", encoding="utf-8", newline="") as file:
        write(file)
    os.replace(beside, path)


def summary_text(summary: Summary) -> str:
    """`summary.json`, indented."""
    return orjson.dumps(summary.as_json(), option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS).decode() + "\n"


