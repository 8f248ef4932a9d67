"""A small HTTP server on loopback, in threads of this process."""

from __future__ import annotations

import threading
from collections.abc import Callable
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, NamedTuple


class Asked(NamedTuple):
    """One request; `body` is None for a GET."""

    path: str
    headers: Message
    body: bytes | None


Reply = tuple[int, bytes] | tuple[int, bytes, dict[str, str]]
"""Status and body, JSON; headers more than those of every answer."""


class Server(ThreadingHTTPServer):
    """One that is behind with its accepting turns nobody away: who is must try again after a second."""

    request_queue_size = 256


class LoopbackServer:
    """Answers each request with what `answer` says of it; use it in a `with`."""

    def __init__(self, answer: Callable[[Asked], Reply]) -> None:
        self._answer = answer

    @property
    def url(self) -> str:
        """Base URL."""
        return f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> LoopbackServer:
        answer = self._answer

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:  # noqa: N802 - the name that http.server asks for
                self._reply(self.rfile.read(int(self.headers.get("Content-Length") or 0)))

            def do_GET(self) -> None:  # noqa: N802
                self._reply(None)

            def _reply(self, body: bytes | None) -> None:
                said = answer(Asked(self.path, self.headers, body))
                status, data = said[0], said[1]
                self.send_response(status)
                for name, value in (said[2] if len(said) == 3 else {}).items():
                    self.send_header(name, value)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: Any) -> None:
                """Say nothing."""

        self._server = Server(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)
