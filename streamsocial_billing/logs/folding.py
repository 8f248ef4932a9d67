"""Libraries repeat themselves while something is wrong: one line says it, the others are counted."""

from __future__ import annotations

import logging
import re
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from streamsocial_billing.logs.lines import is_ours

WINDOW_S: Final = 60.0
MOST: Final = 6
"""Lines that all libraries together may write in a window, however many kinds of trouble they see."""
MOST_KEYS: Final = 500
CLIENTS: Final = ("aiokafka", "librdkafka")
"""Kafka's clients: they repeat by themselves what they complain of, so what matters is what lasts."""
PATIENCE_S: Final = 3.0
_NUMBER = re.compile(r"\d+")
_Key = tuple[str, str]


@dataclass(slots=True)
class _Kind:
    """What was shown of one kind of message: until when others of it are counted, how many were."""

    first_s: float
    last_s: float
    until_s: float
    hidden: int = 0


class Fold(logging.Filter):
    """Lets one message of a kind through in a minute, and counts the rest.

    A kind is a logger with a message's template, numbers apart. Only warnings and worse of libraries are
    folded, and what our own loops repeat (`extra={"fold": True}`): never a line that stands for one payment.
    The next one shown says in `not_shown` how many of its kind were held back since the one before.

    Attributes:
        held_back: how many records were held back in all.
        patience_s: for so long a complaint of Kafka's clients has to last before it is shown: what they mend
            themselves (a coordinator that is not there yet, say) is no news.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self.held_back = 0
        self.patience_s = 0.0
        self._clock = clock
        self._lock = threading.Lock()
        self._kinds: dict[_Key, _Kind] = {}
        self._shown: deque[float] = deque()

    def filter(self, record: logging.LogRecord) -> bool:
        """False if the record is held back."""
        ours = is_ours(record.name)
        if (not getattr(record, "fold", False)) if ours else record.levelno < logging.WARNING:
            return True
        text = _text(record) if ours else str(record.msg)
        patience_s = self.patience_s if record.name.startswith(CLIENTS) else 0.0
        with self._lock:
            hidden = self._show((record.name, _NUMBER.sub("#", text)[:200]), self._clock(), ours, patience_s)
        if hidden:
            record.not_shown = hidden
        return hidden is not None

    def _show(self, key: _Key, now_s: float, ours: bool, patience_s: float) -> int | None:
        """None to hold it back, else how many like it were held back before."""
        kind = self._kinds.get(key)
        if kind is None or now_s >= kind.last_s + WINDOW_S:
            self._forget(now_s)
            kind = self._kinds[key] = _Kind(now_s, now_s, now_s)
        kind.last_s = now_s
        if now_s < kind.until_s or now_s < kind.first_s + patience_s or not (ours or self._has_room(now_s)):
            kind.hidden += 1
            self.held_back += 1
            return None
        if not ours:
            self._shown.append(now_s)
        hidden, kind.hidden, kind.until_s = kind.hidden, 0, now_s + WINDOW_S
        return hidden

    def _has_room(self, now_s: float) -> bool:
        while self._shown and self._shown[0] <= now_s - WINDOW_S:
            self._shown.popleft()
        return len(self._shown) < MOST

    def _forget(self, now_s: float) -> None:
        """Messages with names in their template must not fill the memory."""
        if len(self._kinds) >= MOST_KEYS:
            self._kinds = {key: kind for key, kind in self._kinds.items() if now_s < kind.last_s + WINDOW_S}
        if len(self._kinds) >= MOST_KEYS:
            self._kinds.clear()


def _text(record: logging.LogRecord) -> str:
    """The message; the template alone where that cannot be made: a filter must not fail who logs."""
    try:
        return record.getMessage()
    except Exception:
        return str(record.msg)
