"""How many brokers the environment asks for: one rule for everything that starts Kafka."""

from __future__ import annotations

from collections.abc import Mapping

from broker.jars import BrokerError

OFFERED = (1, 3)


def brokers_wanted(environ: Mapping[str, str]) -> int:
    """How many brokers BROKERS asks for; raises BrokerError where it cannot be."""
    wanted = environ.get("BROKERS", "")
    if wanted not in ("", *map(str, OFFERED)):
        raise BrokerError(f"BROKERS={wanted} is not offered: choose 1 or 3")
    if wanted and environ.get("KAFKA"):
        raise BrokerError(
            f"BROKERS={wanted} starts brokers, KAFKA={environ['KAFKA']} names yours: choose one"
        )
    return int(wanted or 1)


def folder_name(name: str, brokers: int) -> str:
    """The data folder's name for so many brokers: one broker's data are of no use to three."""
    return name if brokers == 1 else f"{name}-{brokers}"
