"""Idempotency keys as Stripe documents them (docs.stripe.com/api/idempotent_requests)."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

Params = list[tuple[str, str]]
Answer = tuple[int, dict[str, Any]]

IN_FLIGHT: Final[Answer] = (409, {"error": {
    "type": "invalid_request_error", "code": "idempotency_key_in_use",
    "message": "There is currently another in-progress request using this Idempotent Key.",
}})  # fmt: skip
OTHER: Final[Answer] = (400, {"error": {
    "type": "idempotency_error",
    "message": "Keys for idempotent requests can only be used with the same parameters they were first used"
    " with, and for the same endpoint.",
}})  # fmt: skip


@dataclass
class Keys:
    """The first answer of each key, for as long as this lives; `replays`: how often one was given again."""

    replays: int = 0
    _kept: dict[str, tuple[str, Params, Answer]] = field(default_factory=dict)
    _under_way: set[str] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def once(
        self, key: str, path: str, params: Params, carry_out: Callable[[], Answer]
    ) -> tuple[Answer, bool]:
        """What `carry_out` answers the first time; whether this was only that answer again."""
        params = sorted(params)
        with self._lock:
            known = self._kept.get(key)
            if known is not None:
                same = known[:2] == (path, params)
                self.replays += same
                return (known[2], True) if same else (OTHER, False)
            if key in self._under_way:
                return IN_FLIGHT, False
            self._under_way.add(key)
        try:
            answer = carry_out()
            if _kept(answer[0]):
                with self._lock:
                    self._kept[key] = path, params, answer
            return answer, False
        finally:
            with self._lock:
                self._under_way.discard(key)


def _kept(status: int) -> bool:
    """A refused parameter or a conflict began nothing: Stripe keeps no answer of it."""
    return status < 400 or status == 402 or status >= 500
