"""Faust's web driver without Faust's own pages."""

from typing import Any, ClassVar

from faust.web.drivers.aiohttp import Web as FaustWeb


class Web(FaustWeb):
    """Serves what this app declares and nothing else; chosen by the web URL `billing://` (setup.cfg)."""

    default_blueprints: ClassVar[Any] = ()
    production_blueprints: ClassVar[Any] = ()
    debug_blueprints: ClassVar[Any] = ()
    optional_blueprints: ClassVar[Any] = ()
