"""Looks at the whole system from one worker, and remembers what it saw."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, replace
from typing import Any, Final

from streamsocial_billing.web.status.finding import OK, Finding
from streamsocial_billing.web.status.findings import findings
from streamsocial_billing.web.status.merging import merged, newest_assignment, newest_books, newest_open
from streamsocial_billing.web.status.peers import Peers
from streamsocial_billing.web.status.report import Report, Reporter
from streamsocial_billing.web.status.state import State

logger = logging.getLogger(__name__)

LOOK_EVERY_S: Final = 3.0
"""How often a worker looks at the others while nobody asks: how late it learns that one is gone."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What one look found.

    findings  the worst first
    books     the live audit of each partition as it was last reported, by partition
    now       the partitions of which that is so now
    backlog   events that are not handled, of each partition that is reported now
    """

    state: State
    findings: list[Finding]
    books: dict[int, dict[str, Any]]
    now: frozenset[int]
    backlog: dict[int, int]
    report: Report

    @property
    def headline(self) -> Finding:
        """The worst thing that is true now."""
        return self.findings[0]

    def as_json(self) -> dict[str, Any]:
        """For those who read `/status`; times in ms since the epoch."""
        state, report = self.state, self.report
        return {
            "at": state.at_ms,
            "ok": self.headline.severity == OK,
            "severity": self.headline.severity,
            "headline": self.headline.headline,
            "findings": [one.as_json() for one in self.findings],
            "worker": state.url,
            "kafka": report["kafka"],
            "assignment": {
                "at": report["assignment"]["at"], "current": report["kafka"]["answers"],
            },
            "gateways": [
                {"name": one.name, "state": one.state, "since": one.since_ms, "actor": one.actor,
                 "reason": one.reason, "waiting": one.waiting} for one in state.gateways
            ],
            "workers": [
                {"url": one.url, "answers": one.answers, "since": one.since_ms,
                 "partitions": list(one.partitions)} for one in state.workers
            ],
            "partitions": [
                {"partition": one.number, "owner": one.owner, "state": one.state, "why": one.why,
                 "checked_at": one.checked_ms} for one in state.partitions
            ],
            "backlog": {
                "waiting": state.backlog.count, "oldest": state.backlog.oldest_ms,
                "not_known": sorted(set(range(state.total)) - self.backlog.keys()),
            },
            "open": {
                "unknown": state.unknown.count, "unknown_oldest": state.unknown.oldest_ms,
                "parked": state.parked.count, "parked_oldest": state.parked.oldest_ms,
            },
            "report": report,
        }  # fmt: skip


class Overview:
    """The system as this worker sees it; knows everything it needs without Kafka."""

    def __init__(self, reporter: Reporter, peers: Peers) -> None:
        self._reporter = reporter
        self._peers = peers
        self._began_ms: dict[tuple[str, str], int] = {}
        self._memory: Report = {"at": 0, "open": {}, "books": []}

    async def run(self) -> None:
        """Look again and again, until cancelled; a fault in here must not stop a worker that works."""
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            try:
                await self.ask()
            except Exception:
                logger.exception("looking at the system failed", extra={"fold": True})

    async def ask(self) -> Seen:
        """What is so now: every other worker is asked once, all at the same time, for HOP_S at most."""
        own = self._reporter.report()
        owners = newest_assignment([own, *self._reports()])["owners"]
        await self._peers.look(set(owners.values()) - {own["url"]}, own["at"])
        return self.look()

    def look(self) -> Seen:
        """What is so here now, and was so elsewhere when the others were last asked; asks nobody."""
        own = self._reporter.report()
        peers = list(self._peers.known.values())
        reports = [self._memory, own, *(peer.report for peer in peers if peer.report is not None)]
        books, open_ = newest_books(reports), newest_open(reports)
        self._memory = {"at": 0, "open": open_, "books": list(books.values())}
        state = merged(own, peers, books, open_)
        answers = [own, *self._reports()]
        now = {task["partition"] for report in answers for task in report["books"]}
        backlog = {int(p): one["count"] + one["unread"] for r in answers for p, one in r["backlog"].items()}
        return Seen(
            state=state, findings=self._dated(state), books=books, now=frozenset(now), backlog=backlog,
            report=own,
        )  # fmt: skip

    def _reports(self) -> list[Report]:
        """Of the other workers that answer."""
        known = self._peers.known.values()
        return [peer.report for peer in known if peer.report is not None and peer.lost_ms is None]

    def _dated(self, state: State) -> list[Finding]:
        """The findings; one that does not know since when began at the first look that found it."""
        found = findings(state)
        keys = {(one.code, one.subject) for one in found if one.severity != OK}
        self._began_ms = {key: self._began_ms.get(key, state.at_ms) for key in keys}
        return [
            one if one.since_ms is not None or one.severity == OK
            else replace(one, since_ms=self._began_ms[one.code, one.subject])
            for one in found
        ]  # fmt: skip
