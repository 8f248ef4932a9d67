"""stripe-stateful-mock with an empty list of disputes before it, which it lacks: as much as a worker asks."""

from __future__ import annotations

from types import TracebackType
from urllib.error import HTTPError
from urllib.request import ProxyHandler, Request, build_opener

from support.loopback_server import Asked, LoopbackServer, Reply
from support.stripe_server import StripeServer

NO_DISPUTES = b'{"object": "list", "url": "/v1/disputes", "has_more": false, "data": []}'


class StripeAlone:
    """Both on loopback; use it in a `with`. `charges` are the idempotency keys of the charges that came."""

    def __enter__(self) -> StripeAlone:
        self._stripe = StripeServer()
        self._stripe.__enter__()
        self.charges: set[str] = set()
        self._server = LoopbackServer(self._answer)
        self._server.__enter__()
        self.url = self._server.url
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.__exit__(kind, error, trace)
        self._stripe.__exit__(kind, error, trace)

    def _answer(self, asked: Asked) -> Reply:
        if asked.path.startswith("/v1/disputes"):
            return 200, NO_DISPUTES
        if asked.body is not None and asked.path == "/v1/charges":
            self.charges.add(asked.headers["Idempotency-Key"])
        return self._passed_on(asked)

    def _passed_on(self, asked: Asked) -> Reply:
        names = ("Authorization", "Content-Type", "Idempotency-Key", "Stripe-Version")
        headers = {name: asked.headers[name] for name in names if asked.headers[name] is not None}
        request = Request(self._stripe.url + asked.path, asked.body, headers)  # noqa: S310 - loopback
        try:
            with build_opener(ProxyHandler({})).open(request, timeout=60) as reply:
                return reply.status, reply.read()
        except HTTPError as error:
            return error.code, error.read()
