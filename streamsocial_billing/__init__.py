"""StreamSocial billing: payments charged exactly once on Kafka."""

from typing import Any

__version__ = "0.3.0.dev0"


def __getattr__(name: str) -> Any:
    """Build `app` when `faust -A streamsocial_billing` asks for it; a plain import reads no environment."""
    if name == "app":
        from streamsocial_billing.cli import the_app

        return the_app()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
