"""A PayPal on loopback that keeps what it was sent: idempotent by PayPal-Request-Id, strict about lengths."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

import orjson

MOST = 127


@dataclass
class Kept:
    """A call that was carried out, by its path and its key."""

    body: Any
    reply: dict[str, Any]


@dataclass
class PayPalServer:
    """Use it as a context manager; `most` is the longest `custom_id` that it takes."""

    most: int = MOST
    kept: dict[tuple[str, str], Kept] = field(default_factory=dict)
    moved: list[dict[str, Any]] = field(default_factory=list)
    """Captures and refunds in their order, each with its own words."""
    mismatches: Counter[str] = field(default_factory=Counter)
    """By key, how often other parameters came under it."""

    def __enter__(self) -> PayPalServer:
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)

    @property
    def url(self) -> str:
        """Base URL."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

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
            "id": f"{kind.upper()}{len(self.moved) + 1}", "kind": kind, "status": "COMPLETED",
            "amount": words["amount"], "invoice_id": words["invoice_id"], "custom_id": words["custom_id"],
        }  # fmt: skip
        self.moved.append(moved)
        if kind == "refund":
            return moved
        order = f"ORDER{len(self.moved)}"
        return {"id": order, "status": "COMPLETED", "purchase_units": [{"payments": {"captures": [moved]}}]}

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:  # noqa: N802 - the name that http.server asks for
                raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                body = orjson.loads(raw) if raw.startswith(b"{") else None
                self._answer(*server.post(self.path, self.headers.get("PayPal-Request-Id") or "", body))

            def do_GET(self) -> None:  # noqa: N802
                self._answer(*server.get(self.path))

            def _answer(self, status: int, reply: dict[str, Any]) -> None:
                data = orjson.dumps(reply)
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: Any) -> None:
                """Say nothing."""

        return Handler


def _refused(issue: str) -> tuple[int, dict[str, Any]]:
    return 422, {"name": "UNPROCESSABLE_ENTITY", "details": [{"issue": issue}]}
