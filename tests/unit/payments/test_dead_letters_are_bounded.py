"""A dead letter holds no more of a record than an event may have, and no card number of it."""

from __future__ import annotations

import orjson
import pytest
from support.one_task import OneTask
from support.wishes import payment

from streamsocial_billing.domain.events import MAX_EVENT_BYTES
from streamsocial_billing.gateways.instant import InstantGateway
from streamsocial_billing.kafka.topics import DAY_MS, INPUT_RETENTION_MS, PLANS
from streamsocial_billing.settings import DEAD_LETTERS, PAYMENTS

CARD = "4242424242424242"


def test_a_long_record_is_cut_and_masked() -> None:
    """Refused by its length; 64 KiB are kept, `length` says how long it was; the next payment goes on."""
    with OneTask(InstantGateway()) as lab:
        good = orjson.loads(payment(lab).to_bytes())
        start = orjson.dumps(good | {"note": ""})[:-2]
        filling = b"x" * (MAX_EVENT_BYTES - len(start) - 8)
        value = start + filling + CARD.encode() + b" " * 1_000_000 + b'"}'
        lab.append(PAYMENTS, b"u1", value)
        (result,) = lab.send(payment(lab, "p2"))
        (letter,) = lab.sent(DEAD_LETTERS)
        headers = dict(letter.headers)

    assert "succeeded" == result["status"]
    assert ("too_large", str(len(value)).encode()) == (_text(headers["reason"]), _bytes(headers["length"]))
    assert MAX_EVENT_BYTES == len(letter.value)
    assert start + filling + b"*" * 8 == letter.value


@pytest.mark.parametrize("key", [b"k" * 100_000, CARD.encode() + b"x" * 100_000])
def test_a_long_key_is_cut(key: bytes) -> None:
    """No user_id is as long."""
    with OneTask(InstantGateway()) as lab:
        lab.append(PAYMENTS, key, payment(lab).to_bytes())
        lab.send(payment(lab, "p2"))
        (letter,) = lab.sent(DEAD_LETTERS)

    assert letter.key is not None
    assert 256 == len(letter.key)
    assert CARD.encode() not in letter.key


def test_dead_letters_outlive_their_events_and_end() -> None:
    """The audit looks for the answer of each event that is still there; a week more, as segments may."""
    (kept,) = (int(plan.config["retention.ms"]) for plan in PLANS if plan.name == DEAD_LETTERS)

    assert INPUT_RETENTION_MS + 7 * DAY_MS < kept <= 90 * DAY_MS


def _bytes(value: str | bytes) -> bytes:
    return value.encode() if isinstance(value, str) else value


def _text(value: str | bytes) -> str:
    return _bytes(value).decode()
