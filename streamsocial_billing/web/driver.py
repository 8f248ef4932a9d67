"""Faust's web driver without Faust's own pages, with refusals in our shape."""

import logging
from typing import Any, ClassVar, Final
from weakref import WeakKeyDictionary

from aiohttp.web import BaseSite, Request, StreamResponse
from faust.web.drivers.aiohttp import Web as FaustWeb

from faust_exactly_once import take_port
from streamsocial_billing.web.accepting import BoundedSite
from streamsocial_billing.web.connections import BoundedRunner, Limits, affordable
from streamsocial_billing.web.headers import add_headers
from streamsocial_billing.web.probes import probes_first
from streamsocial_billing.web.refusing import in_our_words

ENDS_WITHIN_S: Final = 6.0
"""How long requests in hand may take once the worker stops: one that waits for Kafka is answered first."""


logger = logging.getLogger(__name__)

_most: WeakKeyDictionary[Any, int] = WeakKeyDictionary()


def bound_connections(app: Any, most: int) -> None:
    """The web port of `app` has at most so many connections, fewer where its descriptors do not suffice."""
    _most[app] = affordable(most)
    if _most[app] < most:
        logger.info("at most %d connections to the web port: half of the descriptors' limit", _most[app])


class Web(FaustWeb):
    """Serves what this app declares and nothing else; chosen by the web URL `billing://` (setup.cfg)."""

    takes_port: ClassVar[bool] = True
    default_blueprints: ClassVar[Any] = ()
    production_blueprints: ClassVar[Any] = ()
    debug_blueprints: ClassVar[Any] = ()
    optional_blueprints: ClassVar[Any] = ()

    def __init__(self, app: Any, **kwargs: Any) -> None:
        super().__init__(app, **kwargs)
        self.web_app.middlewares.extend([in_our_words, probes_first])
        self.web_app.on_response_prepare.append(add_headers)
        limits = Limits(most=_most[app]) if app in _most else Limits()
        self._runner: BoundedRunner = BoundedRunner(
            self.web_app, limits, access_log=None, shutdown_timeout=ENDS_WITHIN_S
        )
        self._ended = False

    def route(self, pattern: str, handler: Any, cors_options: Any = None) -> None:
        """Add a view's methods; HEAD only beside GET (Faust adds it to every view)."""
        if cors_options or self.cors_options:
            super().route(pattern, handler, cors_options)
            return

        async def serve(request: Request) -> StreamResponse:
            response: StreamResponse = await handler(request)
            return response

        methods = handler.get_methods()
        for method in sorted(methods if "GET" in methods else methods - {"HEAD"}):
            self.web_app.router.add_route(method, pattern, serve)

    async def stop_server(self) -> None:
        """Take no more requests, answer those in hand; a second call does nothing."""
        if not self._ended:
            self._ended = True
            await super().stop_server()

    def _new_transport_tcp(self) -> BaseSite:
        """Serve on the port that was taken when the start was checked: nobody can come in between."""
        taken = take_port(self.app)
        return super()._new_transport_tcp() if taken is None else BoundedSite(self._runner, taken)
