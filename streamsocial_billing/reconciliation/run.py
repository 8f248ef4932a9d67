"""One reconciliation: read the legs, match, name the breaks, write reports, repair."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

import orjson

from streamsocial_billing.gateways.base import Gateway
from streamsocial_billing.gateways.errors import InputRefused
from streamsocial_billing.gateways.routing import HOW_TO_SET_UP
from streamsocial_billing.gateways.settlement_lines import Reading
from streamsocial_billing.kafka.topics import INPUT_RETENTION_MS
from streamsocial_billing.reconciliation.asking import ask
from streamsocial_billing.reconciliation.breaks import DAY_MS, Break
from streamsocial_billing.reconciliation.bridge import bridges
from streamsocial_billing.reconciliation.findings import between_books_and_lists
from streamsocial_billing.reconciliation.gateway_lists import LOOK_BACK_MS, load_lists
from streamsocial_billing.reconciliation.matching import index_for_proposals, match
from streamsocial_billing.reconciliation.not_ours import not_ours, refuse_unreadable
from streamsocial_billing.reconciliation.page import write_page
from streamsocial_billing.reconciliation.publish import publish
from streamsocial_billing.reconciliation.report import (
    Summary,
    breaks_in_order,
    count_breaks,
    summary_text,
    write_csv,
    write_file,
)
from streamsocial_billing.reconciliation.results import Cut, OurBooks
from streamsocial_billing.reconciliation.rules import Rules
from streamsocial_billing.reconciliation.settled import between_lists_and_files
from streamsocial_billing.reconciliation.settlement.importing import load_all
from streamsocial_billing.reconciliation.showing import Quiet, Showing
from streamsocial_billing.reconciliation.store import insert_many, opened
from streamsocial_billing.reconciliation.unchecked import not_checked
from streamsocial_billing.settings import GATEWAY_EVENTS, Settings

AHEAD_MS: Final = 3_600_000
"""The lists are read beyond the cut: a gateway whose clock is ahead must not hide a charge."""
NEWER_MS: Final = 30 * DAY_MS
"""How far back the lists are read where our books are empty."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What the caller asked for; times in ms since the epoch.

    as_of      ageing counts to this moment; None: the newest record of our books and the gateways' lists,
               so that a repeat without new data gives the same bytes
    since      the gateways' lists begin here; 0: where our books begin
    link_base  a worker's address, for the links to payments
    reading    what the files do not say themselves: decimal separator, zone of the times
    """

    output: Path
    files: Sequence[Path] = ()
    dry_run: bool = False
    as_of: int | None = None
    since: int = 0
    link_base: str = "http://127.0.0.1:6066"
    reading: Reading = field(default_factory=Reading)


@dataclass(slots=True)
class Done:
    """What a run came to: its summary, how many repairs it appended."""

    summary: Summary
    repairs: int = 0
    repeated_files: list[str] = field(default_factory=list)


class Books(Protocol):
    """Our leg: OurBooks reads it from Kafka."""

    def take_cut(self) -> Cut:
        """Up to where it is read."""

    def total(self, cut: Cut) -> int:
        """How much that is, for a progress bar."""

    def load(self, db: sqlite3.Connection, cut: Cut) -> None:
        """Read it into the store; raises InputRefused, KafkaProblem."""


def reconcile(
    settings: Settings, gateways: Mapping[str, Gateway], wish: Wish, showing: Showing | None = None,
    books: Books | None = None,
) -> Done:  # fmt: skip
    """Run once. Raises InputRefused or KafkaProblem: then no report and no kept line has changed."""
    if not gateways:
        raise InputRefused(f"no gateway is set up, so there is nothing to compare with: {HOW_TO_SET_UP}")
    show = showing if showing is not None else Quiet()
    ours = books if books is not None else OurBooks(settings, show.tick)
    with opened(wish.output) as db, asyncio.Runner() as runner:
        try:
            repeated = _load_files(db, wish, show)
            cut = _load_books(ours, db, show)
            runner.run(_load_lists(db, gateways, wish, cut, show))
            rules = _find(settings=settings, db=db, gateways=gateways, wish=wish, cut=cut, show=show)
            runner.run(ask(db, gateways))
        finally:
            runner.run(_close(gateways))
        done = Done(_summary(
            settings=settings, db=db, gateways=gateways, rules=rules, cut=cut, wish=wish,
        ), repeated_files=repeated)  # fmt: skip
        _write_reports(db, done.summary, wish)
        if not wish.dry_run:
            db.execute("COMMIT")
            show.stage("writing to Kafka")
            done.repairs = publish(settings, db, done.summary.as_record(), gateways)
        return done


def _load_files(db: sqlite3.Connection, wish: Wish, show: Showing) -> list[str]:
    """Load the files; returns the names of those that were loaded before."""

    def begins(path: Path) -> Callable[[int], None]:
        show.stage(f"settlement file {path.name}")
        return show.tick

    return load_all(db, wish.files, wish.reading, begins)


def _load_books(books: Books, db: sqlite3.Connection, show: Showing) -> Cut:
    cut = books.take_cut()
    show.stage("our books", books.total(cut))
    books.load(db, cut)
    return cut


async def _load_lists(
    db: sqlite3.Connection, gateways: Mapping[str, Gateway], wish: Wish, cut: Cut, show: Showing
) -> None:
    both = "SELECT gateway, at FROM a UNION ALL SELECT gateway, at FROM kept.lines"
    each = f"SELECT gateway, min(at) FROM ({both}) GROUP BY 1"  # noqa: S608 - a constant
    first = min((at for name, at in db.execute(each) if name in gateways), default=None)
    since = cut.at_ms - NEWER_MS if first is None else first - LOOK_BACK_MS
    show.stage("the gateways' lists")
    await load_lists(db, gateways, max(since, wish.since), cut.at_ms + AHEAD_MS, show.tick)


async def _close(gateways: Mapping[str, Gateway]) -> None:
    for gateway in gateways.values():
        await gateway.close()


def _find(
    settings: Settings, db: sqlite3.Connection, gateways: Mapping[str, Gateway], wish: Wish, cut: Cut,
    show: Showing,
) -> Rules:  # fmt: skip
    show.stage("matching")
    match(db)
    refuse_unreadable(db)
    index_for_proposals(db)
    newest = db.execute("SELECT max(created) FROM b").fetchone()[0] or 0
    rules = Rules(
        as_of=wish.as_of if wish.as_of is not None else max(cut.newest_ms, min(newest, cut.at_ms)),
        told_by=cut.told_by, since=wish.since, window=settings.match_window_s * 1000,
        unknown_after=settings.give_up_after_s * 1000, observed_after=INPUT_RETENTION_MS,
        settlement_days=settings.settlement_days,
        accounts={name: one.account for name, one in gateways.items()},
        lags={name: int(one.traits.consistency_delay_s * 1000) for name, one in gateways.items()},
        reach={
            name: cut.at_ms - int(one.traits.list_reach_s * 1000)
            for name, one in gateways.items() if one.traits.list_reach_s is not None
        },
    )  # fmt: skip
    show.stage("breaks")
    for found in (between_books_and_lists(db, rules), between_lists_and_files(db, rules)):
        # without its list everything at a gateway would be a break: it is named as not checked instead
        keep_breaks(db, rules, (one for one in found if one.gateway in gateways))
    return rules


def keep_breaks(db: sqlite3.Connection, rules: Rules, found: Iterable[Break]) -> None:
    """Write breaks into the store, each id once."""

    def rows() -> Iterator[tuple[Any, ...]]:
        for one in found:
            body = orjson.dumps(one.as_json(rules.as_of)).decode()
            events = [event for event in (one.event, one.then) if event is not None]
            event = orjson.dumps(events).decode() if events else None
            facts = one.gateway, one.currency, one.at_stake, one.since, int(one.open)
            yield one.id, one.class_, *facts, body, event

    insert_many(db, "INSERT OR IGNORE INTO breaks VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", rows())
    db.row_factory = None


def _summary(
    settings: Settings, db: sqlite3.Connection, gateways: Mapping[str, Gateway], rules: Rules, cut: Cut,
    wish: Wish,
) -> Summary:  # fmt: skip
    db.row_factory = None
    files = db.execute("SELECT hash, name, format, lines FROM kept.files ORDER BY hash").fetchall()
    told = settings.topic(GATEWAY_EVENTS)
    offsets: dict[str, dict[str, list[int]]] = {}
    for (topic, partition), (start, end) in sorted(cut.spans.items()):
        if topic != told:  # our own repairs land there: they would make every second run another one
            offsets.setdefault(topic, {})[str(partition)] = [start, end]
    header = {
        "as_of": rules.as_of, "since": wish.since, "cut": offsets,
        "files": [dict(zip(("hash", "name", "format", "lines"), row, strict=True)) for row in files],
        "rules": {
            "match_window_s": settings.match_window_s, "settlement_days": settings.settlement_days,
            "give_up_after_s": settings.give_up_after_s,
        },
    }  # fmt: skip
    legs = {
        name: db.execute(f"SELECT count(*) FROM {table}").fetchone()[0]  # noqa: S608 - constants
        for name, table in (("results", "a"), ("movements", "b"), ("lines", "kept.lines"))
    } | {"unhandled": cut.unhandled}  # fmt: skip
    crossed = [one for one in bridges(db) if one.gateway in gateways]
    found = count_breaks(db, rules.as_of)
    return Summary(
        header=header, legs=legs, found=found, bridges=crossed, not_ours=not_ours(db),
        not_checked=not_checked(db, gateways),
    )  # fmt: skip


def _write_reports(db: sqlite3.Connection, summary: Summary, wish: Wish) -> None:
    out = wish.output
    write_file(out / "breaks.csv", lambda file: write_csv(db, file))
    write_file(
        out / "report.html", lambda file: write_page(summary, breaks_in_order(db), wish.link_base, file)
    )
    write_file(out / "summary.json", lambda file: file.writelines([summary_text(summary)]))
