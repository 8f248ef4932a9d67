"""stripe-stateful-mock with an empty list of disputes before it, which it lacks: as much as a worker asks."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from urllib.error import HTTPError
from urllib.request import ProxyHandler, Request, build_opener

from support.stripe_server import StripeServer

NO_DISPUTES = b'{"object": "list", "url": "/v1/disputes", "has_more": false, "data": []}'


class StripeAlone:
    """Both on loopback; use it in a `with`. `charges` are the requests of charges that came."""

    def __enter__(self) -> StripeAlone:
        self._stripe = StripeServer()
        self._stripe.__enter__()
        self.charges = 0
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:  # noqa: N802 - http.server calls it so
                outer._answer(self, None)

            def do_POST(self) -> None:  # noqa: N802
                outer._answer(self, self.rfile.read(int(self.headers.get("Content-Length", 0))))

            def log_message(self, *_: object) -> None:
                """Nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)
        self._stripe.__exit__(kind, error, trace)

    def _answer(self, asked: BaseHTTPRequestHandler, body: bytes | None) -> None:
        if asked.path.startswith("/v1/disputes"):
            status, answer = 200, NO_DISPUTES
        else:
            self.charges += body is not None and asked.path == "/v1/charges"
            status, answer = self._passed_on(asked, body)
        asked.send_response(status)
        asked.send_header("Content-Type", "application/json")
        asked.send_header("Content-Length", str(len(answer)))
        asked.end_headers()
        asked.wfile.write(answer)

    def _passed_on(self, asked: BaseHTTPRequestHandler, body: bytes | None) -> tuple[int, bytes]:
        names = ("Authorization", "Content-Type", "Idempotency-Key", "Stripe-Version")
        headers = {name: asked.headers[name] for name in names if asked.headers[name] is not None}
        request = Request(self._stripe.url + asked.path, body, headers)  # noqa: S310 - loopback
        try:
            with build_opener(ProxyHandler({})).open(request, timeout=10) as reply:
                return reply.status, reply.read()
        except HTTPError as error:
            return error.code, error.read()
