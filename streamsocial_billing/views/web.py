"""Faust's web driver without Faust's own pages."""

from typing import Any, ClassVar

from aiohttp.web import BaseSite, SockSite
from faust.web.drivers.aiohttp import Web as FaustWeb

from streamsocial_billing.exactly_once.start import take_port


class Web(FaustWeb):
    """Serves what this app declares and nothing else; chosen by the web URL `billing://` (setup.cfg)."""

    takes_port: ClassVar[bool] = True
    default_blueprints: ClassVar[Any] = ()
    production_blueprints: ClassVar[Any] = ()
    debug_blueprints: ClassVar[Any] = ()
    optional_blueprints: ClassVar[Any] = ()

    def _new_transport_tcp(self) -> BaseSite:
        """Serve on the port that was taken when the start was checked: nobody can come in between."""
        taken = take_port(self.app)
        return super()._new_transport_tcp() if taken is None else SockSite(self._runner, taken)
