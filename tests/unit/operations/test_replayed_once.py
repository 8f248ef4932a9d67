"""A letter goes back once, also where a broker that leads no more tells the end of the log of replays."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import orjson
import pytest
from confluent_kafka import KafkaException

from streamsocial_billing.kafka.committed import Place
from streamsocial_billing.operations import dead_letters
from streamsocial_billing.operations.dead_letters import ReplayRefused
from streamsocial_billing.settings import REPLAYS, Settings

SETTINGS = Settings()
PLACE = SETTINGS.topic(REPLAYS), 0


class Sent:
    """A confirmed record."""

    def __init__(self, topic: str, offset: int) -> None:
        self._topic, self._offset = topic, offset

    def topic(self) -> str:
        """Where it is."""
        return self._topic

    def partition(self) -> int:
        """Where it is."""
        return 0

    def offset(self) -> int:
        """Where it is; -1001: not known."""
        return self._offset


class Marker:
    """A marker on `payments-replays`."""

    def __init__(self, letter_id: str) -> None:
        self._letter_id = letter_id

    def key(self) -> bytes:
        """The letter's id."""
        return self._letter_id.encode()

    def value(self) -> bytes:
        """Who sent it back."""
        return orjson.dumps({"letter": self._letter_id, "actor": "ann", "at": 1, "to": "payments/0/1"})


class Log:
    """`payments-replays` with these markers, whose end is told as `end`."""

    def __init__(self, markers: list[str], end: int) -> None:
        self._markers, self._end = markers, end

    def partitions(self, names: Iterable[str]) -> dict[str, int]:
        """One each."""
        return dict.fromkeys(names, 1)

    def ends(self, places: Iterable[Place]) -> dict[Place, tuple[int, int]]:
        """As it is told."""
        return dict.fromkeys(places, (0, self._end))

    def read(self, span: Mapping[Place, tuple[int, int]], _: float) -> Iterator[Marker]:
        """What is there."""
        ((start, end),) = span.values()
        return (Marker(letter_id) for letter_id in self._markers[start:end])


def replay(
    markers: list[str], end: int, monkeypatch: pytest.MonkeyPatch, offset: int | None = None
) -> list[Any]:
    """Send letter 0-7 back; what was sent."""
    monkeypatch.setattr(dead_letters, "CommittedLog", lambda _: Log(markers, end))
    sent: list[Any] = []

    def send(records: Iterable[Mapping[str, Any]]) -> Any:
        sent.extend(records)
        return [Sent(sent[-1]["topic"], len(markers) if offset is None else offset)]

    dead_letters._append_once(SETTINGS, send, "0-7", b"alice", b"{}", "ann")  # noqa: SLF001
    return sent


def test_the_event_goes_with_its_marker(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both in the transaction; the marker says where the event is. Others' markers are no reason."""
    event, marker = replay(["0-1", "0-2"], 1, monkeypatch)

    assert (SETTINGS.topic("payments"), SETTINGS.topic(REPLAYS)) == (event["topic"], marker["topic"])
    assert "payments/0/2" == orjson.loads(marker["value"])["to"]


@pytest.mark.parametrize("end", [0, 1, 2])
def test_a_marker_beyond_the_end_that_was_told_is_seen_before_the_commit(
    end: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It lies before our own marker, whose place the leader itself has told."""
    with pytest.raises(ReplayRefused, match="went back before"):
        replay(["0-1", "0-7"], end, monkeypatch)


def test_a_place_that_is_not_known_is_no_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """-1001 gets into no marker: the transaction begins anew."""
    with pytest.raises(KafkaException):
        replay([], 0, monkeypatch, offset=-1001)
