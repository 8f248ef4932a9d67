"""A dead letter holds a record as it came, but for card numbers, and ends after a time."""

from __future__ import annotations

import orjson
import pytest
from support.one_task import OneTask
from support.wishes import payment

from streamsocial_billing.gateways.instant import InstantGateway
from streamsocial_billing.kafka.topics import DAY_MS, INPUT_RETENTION_MS, PLANS
from streamsocial_billing.payments.bad_input import PIECE_BYTES
from streamsocial_billing.settings import DEAD_LETTERS, PAYMENTS

CARD = "4242424242424242"


def test_a_long_record_is_kept_whole_without_its_card_number() -> None:
    """Refused by its length; a number is found where two pieces meet; the next payment goes on."""
    with OneTask(InstantGateway()) as lab:
        good = orjson.loads(payment(lab).to_bytes())
        start = orjson.dumps(good | {"note": ""})[:-2]
        filling = b"x" * (5 * PIECE_BYTES - len(start) - 8)
        value = start + filling + CARD.encode() + b" " * 900_000 + b'"}'
        lab.append(PAYMENTS, b"u1", value)
        (result,) = lab.send(payment(lab, "p2"))
        (letter,) = lab.sent(DEAD_LETTERS)
        headers = {name: _text(said) for name, said in dict(letter.headers).items()}

    assert "succeeded" == result["status"]
    assert ("too_large", "card_number", good["payment_id"]) == (
        headers["reason"], headers["masked"], headers["payment_id"],
    )  # fmt: skip
    assert value.replace(CARD.encode(), b"*" * 12 + CARD[-4:].encode()) == letter.value


@pytest.mark.parametrize("key", [b"k" * 100_000, CARD.encode() + b"x" * 100_000])
def test_a_long_key_is_kept_whole_without_its_card_number(key: bytes) -> None:
    """Whoever looks for what was sent finds it."""
    with OneTask(InstantGateway()) as lab:
        lab.append(PAYMENTS, key, payment(lab).to_bytes())
        lab.send(payment(lab, "p2"))
        (letter,) = lab.sent(DEAD_LETTERS)

    assert key.replace(CARD.encode(), b"*" * 12 + CARD[-4:].encode()) == letter.key


def test_dead_letters_outlive_their_events_and_end() -> None:
    """The audit looks for the answer of each event that is still there; a week more, as segments may."""
    (kept,) = (int(plan.config["retention.ms"]) for plan in PLANS if plan.name == DEAD_LETTERS)

    assert INPUT_RETENTION_MS + 7 * DAY_MS < kept <= 90 * DAY_MS


def _bytes(value: str | bytes) -> bytes:
    return value.encode() if isinstance(value, str) else value


def _text(value: str | bytes) -> str:
    return _bytes(value).decode()
