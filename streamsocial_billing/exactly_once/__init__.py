"""The layer by the path that programs outside this repository import: `faust_exactly_once`."""

from faust_exactly_once import *  # noqa: F403
from faust_exactly_once import __all__ as __all__
