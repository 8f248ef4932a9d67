"""Kafka's clients as the simulation gives them to the layer."""

from typing import Any, Final

from faust_exactly_once.clients import Clients

from .clients import SimulatedAdmin, SimulatedReader
from .producer import SimulatedProducer

_producer: Any = SimulatedProducer
_reader: Any = SimulatedReader
_admin: Any = SimulatedAdmin
SIMULATED: Final = Clients(_producer, _reader, _admin)
