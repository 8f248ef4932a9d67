"""What became of a partition's commits and task epochs in this process, counted once a commit."""

from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
LONGEST_REASON = 200  # characters


def reason(exc: BaseException) -> str:
    """An error's name with its text, on one line, of bounded length."""
    return " ".join(f"{type(exc).__name__}: {exc}".split())[:LONGEST_REASON]


@dataclass(slots=True)
class Counts:
    """One partition's counts; they outlive its task epochs, so that they never go back.

    Attributes:
        commits, units, records: committed transactions, what they held (changelog records included).
        seconds: the time that they took, in all.
        in_bucket: commits by duration: up to each of BUCKETS_S, the last for longer ones.
        last_commit_at: seconds since the epoch, of the last commit with units (the others only move an
            offset past transaction markers); None before the first one. Likewise what else it says of it.
        aborts: transactions that were surely aborted, then sent again, by the error's name.
        opened: task epochs that began to run.
        failures: what ended task epochs (or kept them from opening), by the error's name.
    """

    commits: int = 0
    units: int = 0
    records: int = 0
    seconds: float = 0.0
    in_bucket: list[int] = field(default_factory=lambda: [0] * (len(BUCKETS_S) + 1))
    last_commit_at: float | None = None
    last_commit_s: float = 0.0
    last_commit_units: int = 0
    last_commit_records: int = 0
    aborts: Counter[str] = field(default_factory=Counter)
    last_abort: str = ""
    opened: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    last_failure: str = ""

    def committed(self, units: int, records: int, took_s: float, at_s: float) -> None:
        """Count a commit that took so long, and was over at `at_s`, seconds since the epoch."""
        self.commits += 1
        self.units += units
        self.records += records
        self.seconds += took_s
        self.in_bucket[bisect_left(BUCKETS_S, took_s)] += 1
        if units:
            self.last_commit_at, self.last_commit_s = at_s, took_s
            self.last_commit_units, self.last_commit_records = units, records

    def aborted(self, exc: BaseException) -> None:
        """Count an aborted transaction, which is sent again."""
        self.aborts[type(exc).__name__] += 1
        self.last_abort = reason(exc)

    def failed(self, exc: BaseException) -> None:
        """Count the end of a task epoch by a failure."""
        self.failures[type(exc).__name__] += 1
        self.last_failure = reason(exc)

    def status(self) -> dict[str, Any]:
        """The counts for views, metrics, the log (point 13)."""
        return {
            "commits": self.commits,
            "committed_units": self.units,
            "committed_records": self.records,
            "commit_seconds": self.seconds,
            "commits_in_bucket": list(self.in_bucket),
            "last_commit_at_ms": None if self.last_commit_at is None else int(self.last_commit_at * 1000),
            "last_commit_ms": self.last_commit_s * 1000,
            "last_commit_units": self.last_commit_units,
            "last_commit_records": self.last_commit_records,
            "aborts": dict(self.aborts),
            "last_abort": self.last_abort,
            "opened": self.opened,
            "failures": dict(self.failures),
            "last_failure": self.last_failure,
        }


@dataclass(slots=True)
class Rebalances:
    """Times the stages of a rebalance that all tasks of a worker share; `now` is the monotonic clock."""

    total: int = 0
    _began: float | None = None
    _revoked: float | None = None

    def revoking(self, now: float) -> None:
        """The group takes the partitions back; said again within one rebalance, the first counts."""
        if self._began is None:
            self._began = now

    def revoked(self, now: float) -> None:
        """Every epoch is over; from here on the other members are waited for."""
        self._revoked = now

    def assigned(self, now: float) -> dict[str, float]:
        """The group has assigned partitions.

        Returns:
            milliseconds of the stages "revoke" and "join".
        """
        self.total += 1
        began, revoked = self._began, self._revoked
        self._began = self._revoked = None
        if began is None or revoked is None:
            return {}
        return {"revoke": (revoked - began) * 1e3, "join": (now - revoked) * 1e3}
