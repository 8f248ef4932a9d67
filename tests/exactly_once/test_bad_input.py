"""Every kind of bad input becomes one dead letter; the partition goes on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
from msgspec.structs import replace
from support.system import STEADY, Record, System, payment

from faust_exactly_once import partition_of
from streamsocial_billing.domain.events import PaymentEvent
from streamsocial_billing.settings import PAYMENTS

PARTITIONS = 2
CARD = "4242 4242 4242 4242"
GOOD = payment("user-1", "pay-1")
HOME = partition_of(b"user-1", PARTITIONS)


def changed(**fields: Any) -> bytes:
    """A good event with some fields changed; None removes one."""
    data = orjson.loads(GOOD.to_bytes()) | fields
    return orjson.dumps({name: value for name, value in data.items() if value is not None})


def bad_records() -> list[tuple[str, Record]]:
    """Reason, record: the list "Bad input" of payments.md."""
    key = b"user-1"
    values = [
        ("empty", None),
        ("empty", b""),
        ("not_json", b"no json at all"),
        ("not_json", b'{"amount_minor": NaN}'),
        ("not_json", b"\xff\xfe"),
        ("not_an_object", b"[1, 2]"),
        ("missing_field", changed(currency=None)),
        ("wrong_type", changed(user_id=7)),
        ("wrong_type", changed(amount_minor="999")),
        ("bad_amount", changed(amount_minor=-5)),
        ("bad_amount", changed(amount_minor=0)),
        ("bad_amount", changed(amount_minor=9.99)),
        ("bad_amount", changed(amount_minor=10**18)),
        ("unknown_currency", changed(currency="XXQ")),
        ("unknown_action", changed(action="steal")),
        ("unknown_product", changed(product="car")),
        ("unknown_gateway", changed(gateway="nobody")),
        ("bad_id", changed(payment_id="x" * 65)),
        ("bad_id", changed(payment_id="a/b")),
        ("bad_business_ref", changed(business_ref="no blanks")),
        ("bad_refund_of", changed(refund_of="pay-0")),
        ("card_number", changed(payment_method=CARD)),
        ("card_number", changed(note=f"my card is {CARD}")),
        ("requested_in_future", changed(requested_at=GOOD.requested_at + 3_600_000)),
        ("too_large", changed(payment_method="m" * 1_000_000)),
        ("key_mismatch", changed(user_id="user-2")),
    ]
    records: list[tuple[str, Record]] = [(reason, (key, value, HOME)) for reason, value in values]
    return [
        *records,
        ("key_mismatch", (None, GOOD.to_bytes(), HOME)),
        ("wrong_partition", (key, GOOD.to_bytes(), 1 - HOME)),
    ]


def test_each_kind_of_bad_input_becomes_one_dead_letter_in_the_transaction_of_its_offset(
    broker: str, tmp_path: Path, unique_name: str
) -> None:
    """Reason, source, original bytes; one each although the worker dies twice; good payments go through."""
    records = bad_records()
    goods = [replace(GOOD, user_id=f"user-{number}", payment_id=f"pay-{number}") for number in range(30)]
    with System(broker, tmp_path, unique_name, partitions=PARTITIONS, **STEADY) as system:
        system.append(record for _, record in records)
        system.append(raw(event) for event in goods)
        for point in ("before_commit", "after_commit"):
            system.worker.start(crash_at=(point, 1))
            system.worker.wait_killed()
        system.worker.start()
        system.check()
        assert len(goods) == len(system.all_results())
        letters = [DeadLetter(message) for message in system.dead_letters.records]
        by_source = {letter.source: letter for letter in letters}
        assert len(records) == len(letters) == len(by_source)
        next_offset = {0: 0, 1: 0}
        for reason, (key, value, partition) in records:
            letter = by_source[f"{system.settings.topic(PAYMENTS)}/{partition}/{next_offset[partition]}"]
            next_offset[partition] += 1
            assert reason == letter.reason, letter
            if reason == "card_number":
                assert b"4242 4242" not in letter.value
                assert "card_number" == letter.headers["masked"]
            else:
                assert (key or None, value or b"") == (letter.key, letter.value)
                assert "masked" not in letter.headers


class DeadLetter:
    """A record of the dead letters with its headers as text."""

    def __init__(self, message: Any) -> None:
        self.key: bytes | None = message.key()
        self.value: bytes = message.value()
        self.headers = {name: value.decode() for name, value in message.headers()}
        self.reason = self.headers["reason"]
        self.source = self.headers["source"]


def raw(event: PaymentEvent) -> Record:
    """The event as a careful foreign producer would append it."""
    key = event.user_id.encode()
    return key, event.to_bytes(), partition_of(key, PARTITIONS)
