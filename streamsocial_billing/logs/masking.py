"""The last line of defence: card numbers, secrets and tokens never get into the log, whoever wrote them."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterable
from typing import Any, Final
from urllib.parse import quote, quote_plus

from streamsocial_billing.domain.card_numbers import LIKE_A_CARD, holds_card_in_id, mask_card_numbers
from streamsocial_billing.logs.lines import exception_of, fields_of
from streamsocial_billing.settings import Settings

MASK: Final = "***"
SHORTEST_SECRET: Final = 4
"""A shorter one would be found in half of all words."""
IDS: Final = frozenset({"payment_id", "user_id"})
"""Ids may be numbers: only what looks like a card of a big brand is masked (domain/card_numbers.py)."""

# by their shape, also those that are not in our settings: the header, keys of gateways, userinfo in a URL
_BEARER = (
    r"(?i:(bearer|basic)(?:[\x00-\x20\xa0]|\\+(?:[tnrvf]|x[0-9a-f]{2}|u[0-9a-f]{4})|[\"':=])+)"
    r"[A-Za-z0-9._~+/=-]{4,}"
)
_KEYS = r"\b(?:sk|rk|whsec)_[A-Za-z0-9_]{8,}"
_USERINFO = r"(?<=://)(?:[^\s/@:]*:[^\s/]+|[^\s/@:]{4,})(?=@)"  # up to the last @: a password may hold one
_NAMED = (
    r"(?i:(?<=access_token)|(?<=client_secret)|(?<=password)|(?<=api_token)|(?<=api[_-]key)|(?<=apikey)"
    r"|(?<=authorization)(?![\"'\\]*\s*[:=][\s\"'\\]*(?:[tnr]\s*)?(?:bearer|basic)))"
    r"[\"'\\]*\s*[:=][\s\"'\\]*[^\s\"'\\,;&}]{4,}"
)
# one of these is in whatever matches above
_SIGNS = (
    "bearer", "basic", "sk_", "rk_", "whsec_", "://", "access_token", "client_secret", "password",
    "api_token", "api_key", "api-key", "apikey", "authorization",
)  # fmt: skip
_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_LONG_RUN = re.compile(r"\d(?=[^A-Za-z]{11})(?:[\W_]*\d){11}")
"""Found wherever a card number may be; the time that a line begins with has fewer digits."""


def secrets_of(settings: Settings) -> list[str]:
    """The secret values of the settings, one by one."""
    values = (
        settings.api_token, settings.stripe_api_key, settings.paypal_client_secret,
        settings.kafka_sasl_password, *settings.webhook_secrets,
    )  # fmt: skip
    return [value for value in values if value is not None]


class Mask(logging.Filter):
    """Masks message, fields and traceback of a record before anything formats it."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        super().__init__()
        written = {form for secret in secrets if len(secret) >= SHORTEST_SECRET for form in _forms(secret)}
        values = [re.escape(form) for form in sorted(written, key=len, reverse=True)]
        self._pattern = re.compile("|".join([*values, _BEARER, _KEYS, _USERINFO, _NAMED]))
        self._signs = (*{form.lower().replace("\\", "") for form in written}, *_SIGNS)

    def filter(self, record: logging.LogRecord) -> bool:
        """Mask the record in place; it is always let through, without its content if that cannot be read."""
        try:
            self._mask_all(record)
        except Exception as error:
            text = f"a record of {record.name} cannot be masked: {type(error).__name__}"
            record.msg, record.args, record.exc_info, record.exc_text, record.stack_info = (
                text, None, None, None, None,
            )  # fmt: skip
            for key in fields_of(record):
                record.__dict__[key if key in record.__dict__ else key[:-1]] = None
        return True

    def _mask_all(self, record: logging.LogRecord) -> None:
        record.msg, record.args = self.text(_message(record)), None
        trace = exception_of(record)
        if trace is not None:
            record.exc_text, record.exc_info, record.stack_info = self.text(trace), None, None
        for key, value in fields_of(record).items():
            if isinstance(value, bool | float):
                continue
            masked = self._field(key, value)
            if not isinstance(value, int) or masked != str(value):
                record.__dict__[key if key in record.__dict__ else key[:-1]] = masked

    def suspects(self, line: str) -> bool:
        """False if a formatted line surely needs no masking: a quick look, for the many that need none."""
        lower = line.lower().replace("\\", "")  # however often it was escaped
        for sign in self._signs:  # noqa: SIM110 - any() costs a generator for each line
            if sign in lower:
                return True
        return "\\" in line or _LONG_RUN.search(line) is not None  # an escape may be any blank, dash, digit

    def text(self, text: str) -> str:
        """The text with everything masked that must not be read."""
        text = self._pattern.sub(_mask, text)
        if "\\" in text or LIKE_A_CARD.search(text):
            text = mask_card_numbers(text.encode("utf-8", "surrogatepass"))[0].decode("utf-8", "replace")
        return text

    def _field(self, key: str, value: Any) -> str:
        text = value if isinstance(value, str) else str(value)
        if key in IDS and _ID.fullmatch(text) and not holds_card_in_id(text):
            return self._pattern.sub(_mask, text)
        return self.text(text)


def _mask(found: re.Match[str]) -> str:
    return f"{found[1]} {MASK}" if found[1] else MASK


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except (TypeError, ValueError, KeyError):  # a library's template does not fit its arguments
        return f"{record.msg} {record.args}"


def _forms(secret: str) -> set[str]:
    """How a secret may be written: as it is, in JSON, in a URL, in Python's repr, and once more so."""
    once = {secret, *_written(secret)}
    return once.union(*(_written(form) for form in once))


def _written(text: str) -> tuple[str, ...]:
    return json.dumps(text)[1:-1], quote(text, safe=""), quote_plus(text), repr(text)[1:-1]
