"""Faust's table manager without Faust's recovery: the layer recovers each task by itself."""

import asyncio
from typing import Any

from faust.tables.manager import TableManager as FaustTableManager
from mode import Service

from .errors import SetupRefused
from .layer import Layer


class Recovery(Service):
    """Stands where Faust's recovery service would; there is nothing left for it to do."""

    def __init__(self, app: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.app = app
        self.completed = asyncio.Event()

    def on_partitions_revoked(self, revoked: Any) -> None:
        """Nothing: `Consumer` ended the task epochs before."""


class TableManager(FaustTableManager):
    """Opens a task for each assigned partition; changelogs are never subscribed to."""

    @property
    def recovery(self) -> Any:
        """The stand-in for Faust's recovery service."""
        if self._recovery is None:
            self._recovery = Recovery(self.app, beacon=self.beacon, loop=self.loop)  # type: ignore[assignment]
        return self._recovery

    async def on_start(self) -> None:
        """Start the tables, learn about the topics; then the conductor may subscribe."""
        if not self.app.in_transaction:
            raise SetupRefused(
                "app.in_transaction was read before the worker started: it is False for ever then"
            )
        layer = Layer.of(self.app)
        layer.state.member = self.app.consumer  # type: ignore[assignment]
        await self._update_channels()
        await self.recovery.start()
        self.add_future(layer.watch.run())

    async def _update_channels(self) -> None:
        self._tables_finalized.set()
        for table in self.values():
            await table.maybe_start()
        self._tables_registered.set()

    async def on_stop(self) -> None:
        """End the tasks, then the tables."""
        await self.app._fetcher.stop()  # type: ignore[attr-defined]
        await Layer.of(self.app).supervisor.stop()
        if self._recovery:
            await self._recovery.stop()
        for table in self.values():
            await table.stop()

    async def on_rebalance(
        self, assigned: Any, revoked: Any, newly_assigned: Any, generation_id: int = 0
    ) -> None:
        """Open the assigned tasks in the background; partitions of a task that came in part are refused."""
        layer = Layer.of(self.app)
        tasks = whole_tasks(assigned)
        if tasks and max(tasks) >= layer.partitions:  # the group has noticed before this worker has
            layer.check_partitions({topic: max(tasks) + 1 for topic in tasks[max(tasks)]})
        await layer.supervisor.forget(set(layer.assigned_tasks) - set(tasks))
        await layer.supervisor.assigned(tasks, self.app.consumer.membership)  # type: ignore[attr-defined]
        self.app.flow_control.resume()
        self.app.consumer.resume_flow()
        await self.app._fetcher.maybe_start()  # type: ignore[attr-defined]
        self._recovery_started.set()

    async def wait_until_recovery_completed(self) -> bool:
        """Wait until every assigned task runs.

        Returns:
            True if the worker is to stop instead.
        """
        if self.app.producer_only or self.app.client_only:
            return False
        return bool(await self.wait_for_stopped(Layer.of(self.app).supervisor.all_settled()))


def whole_tasks(assigned: Any) -> dict[int, frozenset[str]]:
    """Per partition number its topics.

    Raises:
        SetupRefused: if a partition number came for some topics only: its task would be split (point 6).
    """
    topics: dict[int, set[str]] = {}
    for tp in assigned:
        topics.setdefault(tp.partition, set()).add(tp.topic)
    every = {tp.topic for tp in assigned}
    parted = sorted(p for p, found in topics.items() if found != every)
    if parted:
        raise SetupRefused(
            f"partitions {parted} were assigned for some source topics only, of {sorted(every)}"
        )
    return {partition: frozenset(found) for partition, found in topics.items()}
