"""What the simulation gives to the layer as its environment."""

from dataclasses import replace
from typing import Any, Final

from faust_exactly_once.clients import Clients
from faust_exactly_once.disk import Disk
from faust_exactly_once.environment import Environment, Threads

from .clients import SimulatedAdmin, SimulatedReader
from .clock import VirtualTime
from .disk import MemoryBatch, MemoryDatabase, open_real, remove
from .fibers import Executor, Lock, Outcome, start
from .producer import SimulatedProducer

_producer: Any = SimulatedProducer
_reader: Any = SimulatedReader
_admin: Any = SimulatedAdmin
_pool: Any = Executor
_lock: Any = Lock
_future: Any = Outcome
_open: Any = MemoryDatabase
_remove: Any = remove

IN_MEMORY: Final = Environment(
    Clients(_producer, _reader, _admin), VirtualTime(), Threads(_pool, start, _lock, _future),
    Disk(_open, MemoryBatch, _remove),
)  # fmt: skip
ON_ROCKSDB: Final = replace(IN_MEMORY, disk=Disk(open=open_real))
