"""A dead letter that came from a replay names the letter it came from."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from layer_kit.memory_kafka import Record
from support.asked_gateway import AskedGateway
from support.one_task import OneTask

from streamsocial_billing.operations.dead_letters import DeadLetter, Replay, failed_again
from streamsocial_billing.settings import PAYMENTS


@pytest.fixture
def lab() -> Iterator[OneTask]:
    with OneTask(AskedGateway()) as lab:
        yield lab


@pytest.mark.parametrize(
    ("header", "expected"),
    [(b"3-17", "3-17"), (b"4242424242424242", None), (b"3-17; drop", None), (b"", None)],
)
def test_the_header_of_a_replay_is_passed_on_to_the_letter(
    lab: OneTask, header: bytes, expected: str | None
) -> None:
    """Only what is the id of a letter: a foreign header may hold anything."""
    place = lab.settings.topic(PAYMENTS), 0
    lab.kafka.logs[place].append(Record(*place, 0, b"u1", b"no JSON", lab.now_ms, (("replay_of", header),)))
    lab.handle()
    (letter,) = lab.dead_letters()
    assert ("not_json", expected) == (letter["reason"], letter.get("replay_of"))


def letter(letter_id: str, source: str, replay_of: str | None = None) -> DeadLetter:
    """A letter of which only its links matter."""
    return DeadLetter(letter_id, 1, "empty", "x", source, None, None, None, b"", False, None, replay_of)


def test_a_letter_without_the_header_is_found_by_the_place_its_replay_went_to() -> None:
    """A worker of an older release wrote it."""
    back = {"0-1": Replay("payments/0/7", "ann", 1), "0-2": Replay(None, "ann", 1)}
    found = [
        letter("0-3", "payments/0/7"), letter("0-4", "payments/0/9", "0-2"), letter("0-5", "payments/0/8"),
    ]  # fmt: skip
    assert {"0-1": "0-3", "0-2": "0-4"} == failed_again(back, found)
