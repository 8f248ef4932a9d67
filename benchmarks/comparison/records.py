"""What one run found, as it is kept in the raw results."""

from __future__ import annotations

import msgspec


class Changelog(msgspec.Struct, frozen=True):
    """The last committed value of each user in the changelog, added up."""

    keys: int
    unreadable: int
    charges: int
    duplicates: int
    charged_minor: int


class Books(msgspec.Struct, frozen=True):
    """What came out, beside what had to. `changelog`: None where a peer has none that can be read."""

    events: int
    distinct: int
    amount_minor: int
    results: int
    charged_ids: int
    charged_twice: int
    duplicates: int
    metrics: int
    metrics_charged: int
    changelog: Changelog | None = None

    def faults(self) -> list[str]:
        """What is wrong, in words; empty where every payment was charged exactly once and told once."""
        resent = self.events - self.distinct
        found: list[tuple[object, object, str]] = [
            (self.charged_twice, 0, f"payments charged twice or more: {self.charged_twice}"),
            (self.charged_ids, self.distinct, f"{self.charged_ids} of {self.distinct} payments charged"),
            (self.duplicates, resent, f"{self.duplicates} duplicates for {resent}"),
            (self.metrics, self.events, f"{self.metrics} metrics for {self.events} events"),
            (self.metrics_charged, self.distinct, f"{self.metrics_charged} charges in the metrics"),
        ]
        if self.changelog is not None:
            state = self.changelog
            has = (state.charges, state.duplicates, state.charged_minor)
            due = (self.distinct, resent, self.amount_minor)
            found.append((has, due, f"changelog has charges, duplicates, money {has}, not {due}"))
        return [text for is_, must_be, text in found if is_ != must_be]


class Run(msgspec.Struct, frozen=True):
    """One configuration in one round. `trouble`: why it did not come to its end; `figures` may lack some."""

    configuration: str
    round: int
    payments: int
    figures: dict[str, float]
    books: Books
    trouble: str | None = None
    log: str = ""
    load_average: float = 0.0

    def faults(self) -> list[str]:
        """Why its figures count for nothing; empty where they count."""
        return [*([self.trouble] if self.trouble else []), *self.books.faults()]


class Comparison(msgspec.Struct, frozen=True):
    """All runs, with what has to be known to repeat them. `about`: commit, machine, sizes, in words."""

    about: dict[str, str]
    runs: list[Run]
