"""How a log record becomes one line of text; what it has in common with JSON (json_lines.py)."""

from __future__ import annotations

import json
import logging
import re
import time
from typing import Any, Final

OURS: Final = ("streamsocial_billing", "faust_exactly_once")
"""The loggers of our code: the product's and the layer's."""
FORMATS: Final = ("text", "json")
OWN_KEYS: Final = frozenset({"time", "level", "logger", "message", "exception"})
"""What every line has; a field of the same name is written with an underscore behind it."""

_STANDARD = frozenset(logging.makeLogRecord({}).__dict__) | {
    "message", "asctime", "taskName",
    "fields_in_message",  # True: the message names the fields itself, so that text need not repeat them
    "fold",  # True: one of ours that repeats as those of a library do (folding.py)
}  # fmt: skip
# control signs, line ends, what turns the direction of writing, halves of surrogate pairs
UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_PLAIN = re.compile(r"[!#-<>-\[\]-~]+")  # printable ASCII without blank, quote, equals sign, backslash
_TREE = re.compile(r"\[\^-*(.*?)\]: ")
_NAMED = {"\n": r"\n", "\r": r"\r", "\t": r"\t"}
_COLOURS = {"WARNING": "\x1b[33m", "ERROR": "\x1b[31m", "CRITICAL": "\x1b[1;31m"}
_PLAIN_AGAIN = "\x1b[0m"


def escaped(text: str) -> str:
    """The text in one line of printable signs, so that nothing in it can pass for another line."""
    return UNPRINTABLE.sub(_escape, text) if UNPRINTABLE.search(text) else text


def escaped_json(text: str) -> str:
    """JSON in one line of printable signs: what it says is the same."""
    return UNPRINTABLE.sub(lambda sign: f"\\u{ord(sign[0]):04x}", text) if UNPRINTABLE.search(text) else text


def _escape(found: re.Match[str]) -> str:
    sign = found[0]
    return _NAMED.get(sign) or (f"\\x{ord(sign):02x}" if sign < "\x80" else f"\\u{ord(sign):04x}")


def short(name: str) -> str:
    """A logger's name without that of our package; the layer's are `exactly_once`, `exactly_once.watch`."""
    return name.removeprefix("streamsocial_billing.").removeprefix("faust_")


def is_ours(name: str) -> bool:
    """True for a logger of our code."""
    return name.partition(".")[0] in OURS


def fields_of(record: logging.LogRecord) -> dict[str, Any]:
    """What was given as `extra`; None values are left out."""
    return {
        f"{key}_" if key in OWN_KEYS else key: value
        for key, value in record.__dict__.items()
        if key not in _STANDARD and value is not None
    }


def message_of(record: logging.LogRecord) -> str:
    """The message; from mode's services without the tree that it draws before them."""
    text = record.getMessage()
    return _TREE.sub(r"\1: ", text, count=1) if text.startswith("[^") else text


class Clock:
    """Times in UTC as ISO 8601 with milliseconds; the part down to the second is made once a second."""

    def __init__(self) -> None:
        self._second = -1
        self._text = ""

    def text(self, created: float) -> str:
        """`created`, seconds since the epoch, as 2026-11-29T18:25:53.123Z."""
        milliseconds = int(created * 1000)
        second = milliseconds // 1000
        if second != self._second:
            self._text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
            self._second = second
        return f"{self._text}.{milliseconds % 1000:03d}Z"


class TextFormatter(logging.Formatter):
    """TIME LEVEL LOGGER MESSAGE key=value ...; `colours` for a terminal."""

    def __init__(self, *, colours: bool = False) -> None:
        super().__init__()
        self._colours = colours
        self._clock = Clock()

    def time_text(self, created: float) -> str:
        """`created`, seconds since the epoch, as lines begin with it."""
        return self._clock.text(created)

    def format(self, record: logging.LogRecord) -> str:
        """The record in one line without its end."""
        level = record.levelname
        if self._colours and level in _COLOURS:
            level = f"{_COLOURS[level]}{level}{_PLAIN_AGAIN}"
        parts = [self._clock.text(record.created), level, short(record.name), escaped(message_of(record))]
        if not getattr(record, "fields_in_message", False):
            parts += [f"{key}={quoted(value)}" for key, value in fields_of(record).items()]
        trace = exception_of(record)
        if trace is not None:
            parts.append(f"exception={quoted(trace)}")
        return " ".join(parts)


def exception_of(record: logging.LogRecord) -> str | None:
    """The traceback as text, and the stack that was asked for, if there is one."""
    trace = record.exc_text
    if record.exc_info and not trace:
        trace = logging.Formatter().formatException(record.exc_info)
    found = [text for text in (trace, record.stack_info) if text]
    return "\n".join(found) if found else None


def quoted(value: Any) -> str:
    """A value as it is, in JSON's quotes where it would break the line or its fields."""
    text = "true" if value is True else "false" if value is False else str(value)
    if text.isascii() and (text.isidentifier() or text.isalnum()):  # nearly always
        return text
    return text if _PLAIN.fullmatch(text) and text != "-" else json.dumps(text)
