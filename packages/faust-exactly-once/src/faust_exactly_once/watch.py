"""Looking at every task now and then, to say in one line how it is (point 13)."""

import asyncio
import json
import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from .assigned_task import AssignedTask
from .head_of_line import BEGINS, OVER, Blocker, Blockers
from .health import Health
from .options import Options

logger = logging.getLogger(__name__)

LOOK_EVERY_S = 1.0  # how late a blocker is noticed, so how much its age may be too small
LONGEST_KEY = 64  # bytes of a message key in a line
STAGES = ("revoke", "join", "fence", "recover", "first_events")
LEVELS = {BEGINS: logging.ERROR, OVER: logging.WARNING}
PLAIN = re.compile(r"[!#-<>-\[\]-~]+")  # printable ASCII without blank, quote, equals sign, backslash
FIELD = re.compile(r'(\w+)=("(?:[^"\\]|\\.)*"|\S+)')
Status = Mapping[str, Any]
Line = tuple[int, str]


@dataclass(slots=True)
class Partition:
    """What the watch remembers of one task: its blockers, what was said of it last."""

    blockers: Blockers
    said_at_s: float = float("-inf")
    said: Any = None
    blocked: bool = False
    status: Status = field(default_factory=dict)

    def is_due(self, status: Status, now_s: float, every_s: float) -> bool:
        """True if a line is to be said: bad news at once, other news as often as the options want."""
        if status["state"] == "blocked" and not self.blocked:
            return True
        return news_of(status) != self.said and now_s >= self.said_at_s + every_s

    def note(self, status: Status, now_s: float) -> None:
        """Remember what was just said."""
        self.said, self.said_at_s = news_of(status), now_s
        self.blocked = status["state"] == "blocked"


class Watched(Protocol):
    """What is looked at."""

    options: Options
    health: Health

    def status(self) -> list[dict[str, Any]]:
        """Per task its state."""


class Watch:
    """Writes one line per task when there is something to say; looks only, so nothing waits for it."""

    def __init__(self, layer: Watched, clock: Callable[[], float] | None = None) -> None:
        self._layer = layer
        self._clock = clock or layer.options.environment.clock.monotonic
        self._wall_clock = layer.options.environment.clock.time
        self._partitions: dict[int, Partition] = {}

    async def run(self) -> None:
        """Look until cancelled."""
        every_s = min(LOOK_EVERY_S, self._layer.options.report_every_s)
        while True:
            await asyncio.sleep(every_s)
            self.run_once()

    def run_once(self) -> None:
        """Look once; a fault in here must not stop a worker that works."""
        try:
            self._layer.health.look()
            for level, text in self.look():
                logger.log(level, "%s", text, extra=as_fields(text))
        except Exception:
            logger.exception("looking at the tasks failed")

    def oldest(self, assigned: AssignedTask) -> dict[str, Any]:
        """The oldest event of a task that is not committed, None if there is none; whether it is an alarm."""
        now_s, blockers = self._clock(), self._of(assigned.partition).blockers
        blockers.see(assigned.sources(), now_s)
        blocker = blockers.oldest()
        return {
            "oldest": None if blocker is None else blocker.status(now_s),
            "alarm": blockers.is_alarm(blocker, now_s),
        }

    def look(self) -> list[Line]:
        """The lines that are to be said now."""
        found: list[Line] = []
        if self._layer.health.connectivity.lost_ms is not None:
            return found  # Kafka is away: one line says it for all tasks (operator_log.py)
        every = self._layer.status()
        for status in every:
            found += self._lines(self._of(status["partition"]), status)
        for number in self._partitions.keys() - {status["partition"] for status in every}:
            gone = self._partitions.pop(number)
            gone.blockers.end()
            found += self._alarms(gone, {**gone.status, "state": "left"})
        return found

    def _lines(self, partition: Partition, status: Status) -> list[Line]:
        found = self._alarms(partition, status)
        now_s = self._clock()
        if found or partition.is_due(status, now_s, self._layer.options.report_every_s):
            partition.note(status, now_s)
            found = found or [self._state(partition, status, now_s)]
        partition.status = status
        return found

    def _alarms(self, partition: Partition, status: Status) -> list[Line]:
        news = partition.blockers.news(self._clock())
        return [(LEVELS[alarm], self._text(status, blocker, alarm)) for alarm, blocker in news]

    def _state(self, partition: Partition, status: Status, now_s: float) -> Line:
        blocker = partition.blockers.oldest()
        alarm = "stands" if partition.blockers.is_alarm(blocker, now_s) else "no"
        level = logging.WARNING if status["state"] == "blocked" else logging.INFO
        return level, self._text(status, blocker, alarm)

    def _text(self, status: Status, blocker: Blocker | None, alarm: str) -> str:
        key_text = self._layer.options.key_text
        return line(status, blocker, alarm, self._clock(), self._wall_clock(), key_text)

    def _of(self, number: int) -> Partition:
        if number not in self._partitions:
            self._partitions[number] = Partition(Blockers(self._layer.options.head_of_line_alarm_s))
        return self._partitions[number]


def news_of(status: Status) -> Any:
    """What makes a line worth saying if it differs; times alone do not."""
    oldest = status["oldest"] or {}
    return (
        status["state"], status["why"], status["recovered"], status["waiting_units"], status["commits"],
        status["aborts"], status["failures"], dict(status["stages_ms"]), oldest.get("offset"),
    )  # fmt: skip


def line(
    status: Status, blocker: Blocker | None, alarm: str, now_s: float, wall_s: float,
    key_text: Callable[[bytes], str],
) -> str:  # fmt: skip
    """One task in one line of key=value: the same keys in the same order, "-" where there is nothing."""
    last_ms = status["last_commit_at_ms"]
    fields = {
        "task": status["partition"],
        "state": status["state"],
        "why": status["why"],
        "recovered": f"{status['recovered']}/{status['to_recover']}",
        "waiting": status["waiting_units"],
        **_event(status["partition"], blocker, now_s, wall_s, key_text),
        "alarm": alarm,
        "commits": status["commits"],
        "units": status["committed_units"],
        "records": status["committed_records"],
        "commit_age_s": None if last_ms is None else f"{wall_s - last_ms / 1000:.1f}",
        "commit_ms": None if last_ms is None else f"{status['last_commit_ms']:.1f}",
        "commit_units": status["last_commit_units"],
        "commit_records": status["last_commit_records"],
        "aborts": sum(status["aborts"].values()),
        "last_abort": status["last_abort"],
        "failures": sum(status["failures"].values()),
        "last_failure": status["last_failure"],
        **{f"{stage}_ms": _whole(status["stages_ms"].get(stage)) for stage in STAGES},
    }
    return "status " + " ".join(f"{name}={_quoted(value)}" for name, value in fields.items())


def as_fields(text: str) -> dict[str, Any]:
    """The fields of a line for logs that keep them apart; numbers as numbers."""
    found: dict[str, Any] = {"fields_in_message": True}
    for name, value in FIELD.findall(text):
        if value != "-":
            found[name] = json.loads(value) if value[0] == '"' else _number(value)
    return found


def _number(text: str) -> int | float | str:
    try:
        return float(text) if "." in text else int(text)
    except ValueError:
        return text


def _event(
    partition: int, blocker: Blocker | None, now_s: float, wall_s: float, key_text: Callable[[bytes], str]
) -> dict[str, Any]:
    if blocker is None:
        return dict.fromkeys(("oldest", "held_by", "age_s", "gap_s", "key"))
    event = blocker.event
    return {
        "oldest": f"{event.topic}-{partition}@{event.offset}",
        "held_by": event.held_by,
        "age_s": None if event.at_ms is None else f"{wall_s - event.at_ms / 1000:.1f}",
        "gap_s": f"{blocker.age_s(now_s):.1f}",
        "key": None if event.key is None else key_text(event.key[:LONGEST_KEY]),
    }


def _whole(value: float | None) -> str | None:
    return None if value is None else f"{value:.0f}"


def _quoted(value: Any) -> str:
    """A value as it is, in quotes where it would break the line or its fields (a key may hold anything)."""
    if value is None or value == "":
        return "-"
    text = str(value)
    return text if PLAIN.fullmatch(text) and text != "-" else json.dumps(text)
