"""A PayPal on loopback that keeps what it was sent: idempotent by PayPal-Request-Id, strict about lengths."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

import orjson
from support.loopback_server import Asked, LoopbackServer, Reply

MOST = 127


@dataclass
class Kept:
    """A call that was carried out, by its path and its key."""

    body: Any
    reply: dict[str, Any]


@dataclass
class PayPalServer:
    """Use it in a `with`; `most` is the longest `custom_id` that it takes, `status` a new capture's."""

    most: int = MOST
    status: str = "COMPLETED"
    kept: dict[tuple[str, str], Kept] = field(default_factory=dict)
    moved: list[dict[str, Any]] = field(default_factory=list)
    """Captures and refunds in their order, each with its own words."""
    mismatches: Counter[str] = field(default_factory=Counter)
    """By key, how often other parameters came under it."""

    def __enter__(self) -> PayPalServer:
        self._lock = threading.Lock()
        self._server = LoopbackServer(self._answer)
        self._server.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.__exit__(kind, error, trace)

    @property
    def url(self) -> str:
        """Base URL."""
        return self._server.url

    def of_kind(self, kind: str) -> list[dict[str, Any]]:
        """Captures (`capture`) or refunds (`refund`)."""
        return [one for one in self.moved if one["kind"] == kind]

    def post(self, path: str, key: str, body: Any) -> tuple[int, dict[str, Any]]:
        """What PayPal answers."""
        if path == "/v1/oauth2/token":
            return 200, {"access_token": "t-1", "expires_in": 3600}
        with self._lock:
            known = self.kept.get((path, key))
            if known is not None:
                if known.body != body:
                    self.mismatches[key] += 1
                    return _refused("DUPLICATE_REQUEST_ID")
                return 200, known.reply
            words = body["purchase_units"][0] if path.endswith("/orders") else body
            if max(len(words["custom_id"]), len(words["invoice_id"])) > self.most:
                return _refused("INVALID_STRING_MAX_LENGTH")
            if any(one["invoice_id"] == words["invoice_id"] for one in self.moved):
                return _refused("DUPLICATE_INVOICE_ID")
            reply = self._move(path, words)
            self.kept[path, key] = Kept(body, reply)
            return 201, reply

    def get(self, path: str) -> tuple[int, dict[str, Any]]:
        """A capture by its id."""
        found = [one for one in self.moved if path.endswith(f"/captures/{one['id']}")]
        return (200, found[0]) if found else (404, {})

    def _move(self, path: str, words: dict[str, Any]) -> dict[str, Any]:
        kind = "capture" if path.endswith("/orders") else "refund"
        moved = {
            "id": f"{kind.upper()}{len(self.moved) + 1}", "kind": kind,
            "status": self.status if kind == "capture" else "COMPLETED",
            "amount": words["amount"], "invoice_id": words["invoice_id"], "custom_id": words["custom_id"],
        }  # fmt: skip
        self.moved.append(moved)
        if kind == "refund":
            return moved
        order = f"ORDER{len(self.moved)}"
        return {"id": order, "status": "COMPLETED", "purchase_units": [{"payments": {"captures": [moved]}}]}

    def _answer(self, asked: Asked) -> Reply:
        if asked.body is None:
            status, reply = self.get(asked.path)
        else:
            body = orjson.loads(asked.body) if asked.body.startswith(b"{") else None
            status, reply = self.post(asked.path, asked.headers.get("PayPal-Request-Id") or "", body)
        return status, orjson.dumps(reply)


def _refused(issue: str) -> tuple[int, dict[str, Any]]:
    return 422, {"name": "UNPROCESSABLE_ENTITY", "details": [{"issue": issue}]}
