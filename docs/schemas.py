"""Writes docs/schemas: a JSON Schema (2020-12) of each topic's record, of each table's row.

In docs/openapi.yaml it writes `NewPayment`, the same of the payment that is sent. `make schemas` after a
record has changed; a test compares. The structs of the code are the only source.
"""

from __future__ import annotations

import re
from inspect import getdoc
from pathlib import Path
from typing import Any, Final

import orjson
from msgspec.json import schema

import tables
from streamsocial_billing import settings
from streamsocial_billing.domain.events import END, PaymentEvent, RetryTrigger
from streamsocial_billing.domain.gateway_events import GatewayEvent
from streamsocial_billing.domain.results import AuthenticationRequest, ChargeResult, PaymentMetric
from streamsocial_billing.operations.commands import Command
from streamsocial_billing.operations.dead_letters import ReplayMarker
from streamsocial_billing.operations.replies import Answer
from streamsocial_billing.reconciliation.breaks import BreakRecord
from streamsocial_billing.reconciliation.report import RunRecord
from tables.payments import LEFT_OUT, ObservedEntry, PaymentEntry, SmallEntry

FOLDER: Final = Path(__file__).with_name("schemas")
RECORDS: Final[dict[str, type]] = {
    settings.PAYMENTS: PaymentEvent,
    settings.RESULTS: ChargeResult,
    settings.METRICS: PaymentMetric,
    settings.RETRY: RetryTrigger,
    settings.AUTHENTICATIONS: AuthenticationRequest,
    settings.GATEWAY_EVENTS: GatewayEvent,
    settings.COMMANDS: Command,
    settings.ANSWERS: Answer,
    settings.REPLAYS: ReplayMarker,
    settings.BREAKS: BreakRecord,
    f"{settings.BREAKS}.run": RunRecord,
}
"""By topic. The records of `payments-dlq` are the original bytes: what is said of them is in headers."""
ENTRIES: Final[dict[str, type]] = {"": PaymentEntry, ".archived": SmallEntry, ".reported": ObservedEntry}
COUNTERS: Final = dict[str, int]
OPENAPI: Final = Path(__file__).with_name("openapi.yaml")
NEW_PAYMENT: Final = re.compile(r"(?<=\n    NewPayment:\n).*?(?=\n    Payment:\n)", re.DOTALL)
FILLED: Final = {"payment_id", "action", "gateway", "requested_at"}
"""What a sender over HTTP may leave out, or set to null, of what an event has always."""
MANY_WORDS: Final = 20
"""More of them (the currencies) are no help to who reads."""


def schemas() -> dict[str, bytes]:
    """The files by their names."""
    made = {f"topic.{name}.json": _schema(kind) for name, kind in RECORDS.items()}
    made |= {f"table.{name}.json": _schema(kind) for name, kind in tables.TYPES.items()}
    made |= {f"table.payments{kind}.json": _schema(row) for kind, row in ENTRIES.items()}
    made[f"table.{tables.COUNTERS}.json"] = _schema(COUNTERS)
    return {
        name: orjson.dumps(what, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
        for name, what in made.items()
    }


def _schema(kind: Any) -> dict[str, Any]:
    made = _for_readers(schema(kind))
    whole = made.pop("$defs", {})
    top = whole.pop(made.pop("$ref").rpartition("/")[2]) if "$ref" in made else made
    _loosen(top, kind)
    parts = {"$defs": whole} if whole else {}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **top, **parts}


def _loosen(top: dict[str, Any], kind: Any) -> None:
    """What a reader has to bear: unknown fields; of an entry, fields that say nothing are left out."""
    top.pop("additionalProperties", None) if kind is not COUNTERS else None
    if kind is PaymentEntry:
        top["required"] = [name for name in top["required"] if name not in LEFT_OUT]
    if kind is GatewayEvent:
        del top["properties"]["newer"]


def _for_readers(part: Any) -> Any:
    """Patterns end as they do everywhere."""
    if isinstance(part, dict):
        return {name: _for_readers(one) for name, one in part.items()}
    if isinstance(part, list):
        return [_for_readers(one) for one in part]
    return part.replace(END, "$") if isinstance(part, str) else part


def openapi() -> str:
    """docs/openapi.yaml with the fields of a new payment."""
    made = _schema(PaymentEvent)
    lines = (f"        {name}: {orjson.dumps(one).decode()}" for name, one in _new_payment(made).items())
    required = ", ".join(name for name in made["required"] if name not in FILLED)
    text = "\n".join(["      type: object", f"      required: [{required}]", "      properties:", *lines])
    return NEW_PAYMENT.sub(lambda _: text, OPENAPI.read_text(encoding="utf-8"))


def _new_payment(made: dict[str, Any]) -> dict[str, Any]:
    """By field its type and what the event's docstring says of it."""
    said = dict(re.findall(r"^(\w+)  +(.+)$", str(getdoc(PaymentEvent)), re.MULTILINE))
    fields: dict[str, Any] = {}
    for name, one in made["properties"].items():
        types = one.get("anyOf", [one])  # of one that may be null: its type, then null
        field = {**types[0], "description": said[name]}
        if field["type"] == "integer":
            field["format"] = "int64"
        if name in FILLED or len(types) > 1 or name not in made["required"]:
            field["type"] = [field["type"], "null"]
        if "enum" in field:
            field |= {"enum": [*field["enum"], *[None] * isinstance(field["type"], list)]}
            if len(field["enum"]) > MANY_WORDS:
                del field["enum"]
        fields[name] = field
    return fields


def main() -> None:
    """Write all, remove what is of nothing any more."""
    FOLDER.mkdir(exist_ok=True)
    made = schemas()
    for path in FOLDER.glob("*.json"):
        if path.name not in made:
            path.unlink()
    for name, content in made.items():
        (FOLDER / name).write_bytes(content)
    OPENAPI.write_text(openapi(), encoding="utf-8")


if __name__ == "__main__":
    main()
