"""Asks the other workers how they are, and remembers what they said last."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Final

import aiohttp
import orjson
from yarl import URL

from streamsocial_billing.web.status.report import Report

HOP_S: Final = 1.0
"""How long another worker may take to answer."""
FRESH_MS: Final = 500
"""An answer that is younger than this is not asked for again: many who look cost no more than one."""
GONE_KEPT_MS: Final = 3_600_000
"""How long a worker that is gone, and has no partition any more, is remembered."""

Ask = Callable[[str], Awaitable[Report | None]]
"""Asks the worker at a url for its report; None if it does not answer."""


@dataclass(slots=True)
class Peer:
    """Another worker; times are ms since the epoch.

    first_ms  when it first answered; None: never
    lost_ms   since when it does not answer: the time of its last answer, or of the first question that got
              none; None while it does
    """

    url: str
    first_ms: int | None = None
    answered_ms: int | None = None
    lost_ms: int | None = None
    report: Report | None = None


@dataclass(slots=True)
class Peers:
    """The other workers by url; knows those of the group's assignments, and those that were there before."""

    ask: Ask
    known: dict[str, Peer] = field(default_factory=dict)
    _asked_ms: int = 0
    _one: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def look(self, urls: Iterable[str], at_ms: int) -> None:
        """Ask each worker once, all at the same time, for HOP_S at most; `urls`: those with partitions."""
        assigned = {url for url in urls if url}
        for url in assigned - self.known.keys():
            self.known[url] = Peer(url)
            self._asked_ms = 0
        async with self._one:
            if at_ms - self._asked_ms >= FRESH_MS:
                self._asked_ms = at_ms
                peers = list(self.known.values())
                answers = await asyncio.gather(*(self.ask(peer.url) for peer in peers))
                for peer, report in zip(peers, answers, strict=True):
                    note(peer, report, at_ms)
        self._forget(assigned, at_ms)

    def _forget(self, assigned: set[str], at_ms: int) -> None:
        """Drop workers that are gone for long, or whose place another one has taken."""
        gone = sorted(
            (peer for peer in self.known.values() if peer.lost_ms is not None and peer.url not in assigned),
            key=lambda peer: peer.lost_ms or 0,
        )  # fmt: skip
        came = sorted(peer.first_ms for peer in self.known.values() if peer.first_ms and peer.lost_ms is None)
        for peer in gone:
            lost_ms = peer.lost_ms or 0
            successor = next((first for first in came if first > lost_ms), None)
            if successor is not None:
                came.remove(successor)
            if successor is not None or at_ms - lost_ms > GONE_KEPT_MS or peer.first_ms is None:
                del self.known[peer.url]


def note(peer: Peer, report: Report | None, at_ms: int) -> None:
    """Take in an answer, or that there was none."""
    if report is None:
        if peer.lost_ms is None:
            peer.lost_ms = peer.answered_ms or at_ms
        return
    peer.first_ms = peer.first_ms if peer.first_ms is not None and peer.lost_ms is None else at_ms
    peer.report, peer.answered_ms, peer.lost_ms = report, at_ms, None


def asking(app: Any) -> Ask:
    """Asks over HTTP: one question, passed on by nobody."""

    async def ask(url: str) -> Report | None:
        try:
            target = URL(url).join(URL("/status"))
            async with asyncio.timeout(HOP_S), app.http_client.get(target) as answer:
                report = orjson.loads(await answer.read())["report"]
                return report if isinstance(report, dict) and report["url"] and report["at"] else None
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError, KeyError, TypeError):
            return None
        except RuntimeError:  # "Session is closed": this worker stops
            return None

    return ask
