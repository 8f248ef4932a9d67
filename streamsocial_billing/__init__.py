"""StreamSocial billing: payments charged exactly once on Kafka."""

from typing import Any

__version__ = "0.3.0.dev0"


def __getattr__(name: str) -> Any:
    """Build `app` when `faust -A streamsocial_billing` asks for it; a plain import reads no environment."""
    if name == "app":
        from streamsocial_billing.cli.main import the_app

        built = the_app()
        globals()["app"] = built  # the module of that name took the attribute when it was imported
        return built
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
