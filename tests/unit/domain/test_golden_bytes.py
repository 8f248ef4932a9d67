"""What earlier releases wrote, byte for byte: this release reads it, and writes it as they did.

`tests/golden/record.py` made the files, from the code of those releases.
"""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import orjson
import pytest
from msgspec.json import Decoder

from faust_exactly_once.counters import summed
from streamsocial_billing.domain.events import ENCODER, PaymentEvent, RetryTrigger
from streamsocial_billing.domain.gateway_events import GatewayEvent
from streamsocial_billing.domain.results import ChargeResult, PaymentMetric
from streamsocial_billing.operations.commands import Command
from streamsocial_billing.operations.dead_letters import ReplayMarker, _letter
from streamsocial_billing.operations.replies import Answer
from tables.payments import read_entry, written

GOLDEN = Path(__file__).resolve().parents[2] / "golden"
EXAMPLES = [
    pytest.param(json.loads(line), id=f"{path.stem}-{number}")
    for path in sorted(GOLDEN.glob("*.jsonl"))
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
]


def _keyed(value: bytes) -> bytes:
    key: str = orjson.loads(value)["user_id"]
    return key.encode()


def _typed(kind: Any) -> Callable[[bytes], bytes]:
    read = Decoder(kind).decode
    return lambda value: ENCODER.encode(read(value))


def _entry(value: bytes) -> bytes:
    entry = read_entry(orjson.loads(value))
    assert entry is not None
    return orjson.dumps(written(entry))


def _answer(value: bytes) -> bytes:
    """Nobody rewrites an answer; of an older release it lacks the last two fields."""
    again = ENCODER.encode(Answer.from_bytes(value))
    return again if b'"code"' in value else again.replace(b',"code":null,"payment_id":null', b"")


def _as_it_is(value: bytes) -> bytes:
    return orjson.dumps(orjson.loads(value))


REWRITTEN: dict[str, Callable[[bytes], bytes]] = {
    "payments": lambda value: PaymentEvent.from_bytes(value, key=_keyed(value), now_ms=2**53).to_bytes(),
    "charge-results": _typed(ChargeResult),
    "payment-metrics": _typed(PaymentMetric),
    "payments-retry": lambda value: RetryTrigger.from_bytes(value).to_bytes(),
    "gateway-events": lambda value: GatewayEvent.from_bytes(value, key=_keyed(value)).to_bytes(),
    "billing-commands": lambda value: Command.from_bytes(value).to_bytes(),
    "billing-command-answers": _answer,
    "reconciliation-breaks": _as_it_is,
    "payments-dlq-replays": _typed(ReplayMarker),
    "table payments": _entry,
    "table charges": _as_it_is,
    "table open_payments": _as_it_is,
    "table business_refs": _as_it_is,
    "table gateway_events": _as_it_is,
    "table awaited_charges": _as_it_is,
    "table gateway_switches": _as_it_is,
    "table subscriptions": _as_it_is,
    "table task_counters": lambda value: summed(value, {}),
}
"""How this release writes again what it has read, by topic or table."""


@pytest.mark.parametrize("example", EXAMPLES)
def test_what_an_earlier_release_wrote_is_read_and_written_back_byte_for_byte(
    example: dict[str, Any],
) -> None:
    """Each shape of each record and row, small and observed ones, with and without what may be left out."""
    if example["of"] == "payments-dlq":
        assert example["headers"] == _headers(example)
    else:
        assert example["value"] == REWRITTEN[example["of"]](example["value"].encode()).decode()


def test_every_topic_and_table_is_there() -> None:
    """Of each there is at least one example."""
    there = {one["of"] for example in EXAMPLES for one in example.values}  # type: ignore[index]
    assert {*REWRITTEN, "payments-dlq"} == there


def _headers(example: dict[str, Any]) -> dict[str, str]:
    """The headers again, from what is read of them."""
    pairs = [(name, value.encode()) for name, value in example["headers"].items()]
    letter = _letter(SimpleNamespace(  # type: ignore[arg-type]
        headers=lambda: pairs, partition=lambda: 0, offset=lambda: 0, key=lambda: b"u1",
        value=lambda: example["value"].encode(), timestamp=lambda: (1, 0),
    ))  # fmt: skip
    said = {
        "error": letter.error, "reason": letter.reason, "source": letter.source, "at": str(letter.at_ms),
        "user_id": letter.user_id, "payment_id": letter.payment_id, "replay_of": letter.replay_of,
        "masked": "card_number" if letter.masked else None,
        "length": None if letter.cut_from is None else str(letter.cut_from),
    }  # fmt: skip
    return {name: text for name, text in said.items() if text is not None}
