"""Counts the open payments of the tasks here, by looking over the shoulder of the timer that walks them."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

Group = tuple[str, str]
"""Gateway, status."""


@dataclass(slots=True)
class Tally:
    """What one walk through open payments found; `oldest_ms` is the append time of the first event.

    Who waits for a customer is counted, and is never the oldest: that alarms nobody.
    """

    counts: Counter[Group] = field(default_factory=Counter)
    oldest_ms: dict[Group, int] = field(default_factory=dict)
    minor: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    """Minor units by gateway, status, currency; of those whose row has them."""
    accounts: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    """By gateway, the accounts that open payments belong to."""

    def add(self, listed: Mapping[str, Any]) -> None:
        """Count a row of `open_payments`; releases before this one wrote less into it."""
        group = listed.get("gateway", ""), listed.get("status", "unknown")
        self.counts[group] += 1
        if "look_at" not in listed and (since := listed.get("since")) is not None:
            self.oldest_ms[group] = min(since, self.oldest_ms.get(group, since))
        if "currency" in listed:
            self.minor[*group, listed["currency"]] += listed["amount_minor"]
        if listed.get("account"):
            self.accounts[group[0]].add(listed["account"])

    def merge(self, other: Tally) -> None:
        """Add another one's counts."""
        self.counts.update(other.counts)
        self.minor.update(other.minor)
        for group, since in other.oldest_ms.items():
            self.oldest_ms[group] = min(since, self.oldest_ms.get(group, since))
        for gateway, accounts in other.accounts.items():
            self.accounts[gateway] |= accounts


class OpenPaymentCounts:
    """The last whole walk through each task; a task with very many open payments takes some seconds."""

    def __init__(self) -> None:
        self._walking: dict[int, Tally] = {}
        self._whole: dict[int, Tally] = {}

    def saw(self, partition: int, rows: Iterable[Mapping[str, Any]], *, whole: bool) -> None:
        """Count the next rows of a task; `whole`: the walk has come to its end."""
        tally = self._walking.setdefault(partition, Tally())
        for listed in rows:
            tally.add(listed)
        if whole:
            self._whole[partition] = self._walking.pop(partition)

    def keep_only(self, partitions: Iterable[int]) -> None:
        """Forget the tasks that have left."""
        here = set(partitions)
        for walks in (self._walking, self._whole):
            for gone in walks.keys() - here:
                del walks[gone]

    def by_partition(self) -> dict[int, Tally]:
        """The last whole walk through each task here; to be read only."""
        return dict(self._whole)

    def total(self) -> Tally:
        """All tasks here together."""
        total = Tally()
        for tally in list(self._whole.values()):
            total.merge(tally)
        return total
