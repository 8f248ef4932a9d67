"""How a log record becomes a JSON object, for collectors; imported only where that format is chosen."""

from __future__ import annotations

import logging
from typing import Any

from pythonjsonlogger.orjson import OrjsonFormatter

from streamsocial_billing.logs.lines import Clock, escaped_json, exception_of, fields_of, message_of, short


class JsonFormatter(OrjsonFormatter):
    """One JSON object a line: time, level, logger, message, the fields, exception."""

    def __init__(self) -> None:
        super().__init__()
        self._clock = Clock()

    def add_fields(
        self, log_data: dict[str, Any], record: logging.LogRecord, message_dict: dict[str, Any]
    ) -> None:
        """Fill the object in the order in which people read it."""
        log_data.update(
            time=self._clock.text(record.created), level=record.levelname, logger=short(record.name),
            message=_utf8(message_of(record)),
        )  # fmt: skip
        for key, value in fields_of(record).items():
            plain = isinstance(value, bool | int | float)
            log_data[key] = value if plain else _utf8(str(value))
        trace = exception_of(record)
        if trace is not None:
            log_data["exception"] = _utf8(trace)

    def jsonify_log_record(self, log_data: dict[str, Any]) -> str:
        """The object in ASCII where a character could end a line or turn it around."""
        text = super().jsonify_log_record(log_data)
        return escaped_json(text)


def _utf8(text: str) -> str:
    """The text without halves of surrogate pairs, which no JSON encoder takes."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()
