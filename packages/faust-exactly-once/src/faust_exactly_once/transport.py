"""Faust's transport plug-in, put together; what would go past a unit is refused."""

import logging
from typing import Any, ClassVar

from faust.transport import base
from faust.transport.consumer import TransactionManager as FaustTransactionManager
from faust.transport.drivers import aiokafka as driver

from .consumer import Conductor, Consumer
from .errors import NoUnit

logger = logging.getLogger(__name__)


class TransactionManager(FaustTransactionManager):
    """Refuses what would go past a unit; the tasks have the transactions."""

    async def on_partitions_revoked(self, revoked: Any) -> None:
        """Nothing: the layer ended its task epochs before."""

    async def on_rebalance(self, assigned: Any, revoked: Any, newly_assigned: Any) -> None:
        """Nothing: the layer opens its tasks."""

    async def send(self, topic: str, *args: Any, **kwargs: Any) -> Any:
        """Refuse: this is Faust's path around a unit."""
        raise NoUnit(f"a send to {topic} outside a handler's unit is in no transaction")

    async def send_and_wait(self, topic: str, *args: Any, **kwargs: Any) -> Any:
        """Refuse, like `send`."""
        raise NoUnit(f"a send to {topic} outside a handler's unit is in no transaction")

    async def commit(self, offsets: Any, start_new_transaction: bool = True) -> bool:
        """Nothing: tasks commit."""
        return False


class Producer(driver.Producer):
    """Faust's plain producer: for commands such as `faust send`, never inside a worker."""

    async def on_start(self) -> None:
        """Connect only outside a worker: in one nothing may go out untransacted."""
        if not self.app.in_worker:
            await super().on_start()

    async def send(self, topic: str, *args: Any, **kwargs: Any) -> Any:
        """Send outside a worker; refuse inside."""
        if self.app.in_worker:
            raise NoUnit(f"a send to {topic} outside a handler's unit is in no transaction")
        return await super().send(topic, *args, **kwargs)


class Transport(base.Transport):
    """Selected by broker URLs that start with `exactly-once://` (entry point group `faust.transports`)."""

    Consumer: ClassVar[Any] = Consumer
    Producer: ClassVar[Any] = Producer
    Conductor: ClassVar[Any] = Conductor
    TransactionManager: ClassVar[Any] = TransactionManager

    default_port = 9092
    driver_version = f"{driver.Transport.driver_version}, confluent-kafka"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._topic_waiters: dict[str, Any] = {}
