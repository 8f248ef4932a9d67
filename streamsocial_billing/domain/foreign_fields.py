"""One field of a foreign record, or what is wrong with it."""

from __future__ import annotations

import re
from typing import Any, Final

import orjson

from streamsocial_billing.domain.card_numbers import holds_card_in_id, mask_text

_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")


class BadInput(ValueError):
    """Raised when a record can never be processed: its bytes belong into the dead letters.

    `reason` is a code for machines, `detail` a text for people that never holds a card number.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


def json_object(value: bytes) -> dict[str, Any]:
    """The object that these bytes hold as JSON; raises BadInput, never anything else."""
    data = _parsed(value)
    if not isinstance(data, dict):
        raise BadInput("not_an_object", "a JSON object is needed")
    return data


def _parsed(value: bytes) -> Any:
    try:
        return orjson.loads(value)
    except orjson.JSONDecodeError as error:  # also NaN, bad UTF-8, lone surrogates, nesting beyond 1024
        raise BadInput("not_json", f"this is not valid JSON, from character {error.pos} on") from None


def object_of(value: bytes | None) -> dict[str, Any]:
    """The object that a record holds; raises BadInput."""
    if not value:
        raise BadInput("empty", "the record has no value")
    data = _parsed(value)
    if type(data) is not dict:
        raise BadInput("not_an_object", f"a JSON object is needed, not {json_type(data)}")
    return data


def text_in(data: dict[str, Any], name: str) -> str:
    """This field, a text; raises BadInput."""
    value = data.get(name)
    if type(value) is str:
        return value
    if name not in data:
        raise BadInput("missing_field", f"{name} is missing")
    raise BadInput("wrong_type", f"{name} is {json_type(value)}, not a string")


def optional_text_in(data: dict[str, Any], name: str) -> str | None:
    """This field, a text; None where it is left out or null. Raises BadInput."""
    return None if data.get(name) is None else text_in(data, name)


def word_in(data: dict[str, Any], name: str, allowed: frozenset[str], reason: str) -> str:
    """This field, one of these words, else BadInput with this reason."""
    value = text_in(data, name)
    if value not in allowed:
        raise BadInput(reason, f"{name} is {shown(value)}")
    return value


def id_in(data: dict[str, Any], name: str, reason: str = "bad_id") -> str:
    """This field, an id and no card number; raises BadInput."""
    value = text_in(data, name)
    if not _ID.fullmatch(value):
        raise BadInput(reason, f"{name} is {shown(value)}: 1 to 64 characters of A-Z a-z 0-9 _ - are needed")
    if holds_card_in_id(value):
        raise BadInput("card_number", f"{name} is a card number")
    return value


def is_id(text: str) -> bool:
    """True for what a user_id or a payment_id may be."""
    return _ID.fullmatch(text) is not None


def present_in(data: dict[str, Any], name: str) -> Any:
    """This field, whatever it holds; raises BadInput where it is missing."""
    if name not in data:
        raise BadInput("missing_field", f"{name} is missing")
    return data[name]


_JSON_TYPES: Final[dict[type, str]] = {
    type(None): "null",
    bool: "a boolean",
    int: "a number",
    float: "a number",
    str: "a string",
    list: "a list",
}


def json_type(value: object) -> str:
    """What JSON calls it."""
    return _JSON_TYPES.get(type(value), "an object")


def shown(value: object) -> str:
    """A foreign value for a message: masked before it is cut, so that no cut hides half a card number."""
    if isinstance(value, bytes):
        value = value.decode("ascii", "backslashreplace")
    if isinstance(value, str):
        text = ascii(value[:256])
    elif isinstance(value, (int, float)) and abs(value) < 1e30:
        text = str(value)
    else:
        text = json_type(value)
    masked = mask_text(text)
    return masked if len(masked) <= 80 else masked[:77] + "..."
