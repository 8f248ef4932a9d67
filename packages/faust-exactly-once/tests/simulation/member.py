"""The group's member in a worker: joins, heartbeats, fetches; it stands where aiokafka and Faust do."""

import asyncio
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from aiokafka.errors import CorruptRecordException, OffsetOutOfRangeError
from confluent_kafka import KafkaError

from faust_exactly_once.brokers import BrokerState
from faust_exactly_once.dispatcher import Fetched
from faust_exactly_once.facts import TP
from faust_exactly_once.membership import Membership

from .application import Record
from .clock import EPOCH_S
from .group import Joined
from .log import OK
from .network import LOST
from .plan import SOURCES

if TYPE_CHECKING:
    from .worker import Worker

GROUP = "app"
SESSION_S = 4.0
HEARTBEAT_S = 1.2
FULL_S = 0.05  # after this long a member looks again if its tasks have room


class Member:
    """Seeks where the layer wants it, hands over what it fetches with the epoch it was fetched for."""

    def __init__(self, worker: "Worker") -> None:
        self._worker = worker
        self._network = worker.network
        self._broker = worker.network.broker
        self._rng = worker.clock.rng
        self._id = ""
        self.generation = -1
        self._partitions: list[int] = []
        self._at: dict[TP, tuple[int, int]] = {}
        self._first: dict[TP, int] = {}
        self._joining = False
        self._rejoin = asyncio.Event()
        self._news = asyncio.Event()
        self._subscribed = False

    # -- membership

    async def run(self) -> None:
        """Be a member, generation after generation."""
        loop = asyncio.get_running_loop()
        loop.create_task(self._heartbeats())
        loop.create_task(self._fetches())
        while True:
            joined = await self._join()
            if isinstance(joined, Joined):
                await self._assigned(joined)
                await self._rejoin.wait()
                await self._worker.layer.supervisor.revoke()
            else:
                self._id = ""

    async def _join(self) -> Any:
        group, me, owned = self._broker.group, self._id, self._partitions
        self._joining = True
        joined = await self._ask("JoinGroup", lambda reply: group.join(me, owned, SESSION_S, reply))
        self._joining = False
        self._rejoin.clear()
        return joined

    async def _assigned(self, joined: Joined) -> None:
        self._id, self.generation, self._partitions = joined
        self._at.clear()
        membership = Membership(GROUP, self.generation, self._id)
        layer, tasks = self._worker.layer, {p: frozenset(SOURCES) for p in self._partitions}
        await layer.supervisor.forget(set(layer.assigned_tasks) - set(tasks))
        await layer.supervisor.assigned(tasks, membership)

    async def _heartbeats(self) -> None:
        while True:
            await asyncio.sleep(HEARTBEAT_S)
            if self._id and not self._joining:
                await self._heartbeat()

    async def _heartbeat(self) -> int:
        group, me, generation = self._broker.group, self._id, self.generation
        code: int = await self._ask("Heartbeat", lambda reply: reply(group.heartbeat(me, generation)))
        if (me, generation) != (self._id, self.generation):
            return OK  # it is about an earlier generation
        if code == KafkaError.UNKNOWN_MEMBER_ID:
            self._id = ""
        if code != OK and not self._joining:
            self._rejoin.set()
        return code

    async def leave(self) -> None:
        """Leave the group for good."""
        group, me = self._broker.group, self._id
        if me:
            await self._ask("LeaveGroup", lambda reply: reply(group.leave(me)))

    def is_settled(self) -> bool:
        """True once it is a member of the generation that the group has."""
        group = self._broker.group
        return not group.preparing and not self._joining and OK == group.check(self._id, self.generation)

    # -- what the layer asks of it

    async def continue_at(self, offsets: Mapping[TP, int], membership: Membership, epoch: int) -> None:
        """Seek, unless the group has moved on; what is fetched from now on belongs to this epoch."""
        if (membership.generation, membership.member_id) == (self.generation, self._id):
            for tp, offset in offsets.items():
                self._at[tp] = (epoch, offset)
                self._first[tp] = offset
            self._news.set()

    async def is_member(self, membership: Membership) -> bool:
        """True if a heartbeat just confirmed this generation."""
        same = (membership.generation, membership.member_id) == (self.generation, self._id)
        return same and not self._rejoin.is_set() and await self._heartbeat() == OK

    def has_contact(self) -> bool:
        """Not asked here."""
        return True

    def silent_s(self) -> float:
        """Never."""
        return 0.0

    def coordinator(self) -> int | None:
        """Not asked here."""
        return None

    def brokers(self) -> Mapping[int, BrokerState]:
        """Not asked here."""
        return {}

    # -- fetching

    async def _fetches(self) -> None:
        while True:
            with_news = {tp: at for tp, at in self._at.items() if self._broker.logs[tp].stable > at[1]}
            if not with_news:
                await self._wait_for_news()
                continue
            wanted = [tp for tp in self._worker.layer.dispatcher.wanted() if tp in with_news]
            if wanted:
                await self._fetch({tp: with_news[tp] for tp in wanted})
            else:
                await asyncio.sleep(FULL_S)

    async def _wait_for_news(self) -> None:
        self._news.clear()
        if not self._subscribed:
            self._subscribed = True
            self._broker.on_news(self._tell)
        await self._news.wait()

    def _tell(self) -> None:
        self._subscribed = False
        self._worker.clock.after(0.001, self._news.set, self._worker)

    async def _fetch(self, wanted: dict[TP, tuple[int, int]]) -> None:
        most = self._rng.randint(1, 6)

        def read(reply: Any) -> None:
            logs = self._broker.logs
            reply({
                tp: None if at < logs[tp].start else logs[tp].read(at, most, committed=True)
                for tp, (_, at) in wanted.items()
            })  # fmt: skip

        answer = await self._ask("Fetch", read)
        found = {tp: self._fetched(tp, *wanted[tp], got) for tp, got in answer.items()}
        for topic, batch in self._worker.layer.dispatcher.batches(
            {tp: got for tp, got in found.items() if got is not None}
        ):
            self._worker.application.give(topic, batch)

    def _fetched(self, tp: TP, epoch: int, start: int, got: Any) -> Fetched | None:
        """What came, as the layer gets it; now and then as a fetcher in trouble would hand it over."""
        is_current = self._at.get(tp) == (epoch, start)
        if not is_current and self._rng.random() < 0.5:
            return None  # else it is handed over, for a task epoch that has ended
        if got is None:
            return Fetched(epoch, start, [], start, OffsetOutOfRangeError({}))
        chance = self._rng.random()
        if chance < 0.01 and is_current:
            del self._at[tp]
            return Fetched(epoch, start, [], start, CorruptRecordException("simulated"))
        records, end = got
        events = [_record(tp, *record) for record in records]
        if is_current:
            back = max(self._first[tp], self._broker.logs[tp].start, end - 3)
            self._at[tp] = (epoch, back if chance < 0.04 else end)
        if chance > 0.99 and len(events) > 1:
            return Fetched(epoch, events[1].offset, events[1:], end)  # a hole
        return Fetched(epoch, start, events, end)

    async def _ask(self, api: str, serve: Any) -> Any:
        """Ask until there is an answer."""
        while True:
            answered: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
            self._network.call(self._worker, api, serve, partial(_tell, answered))
            answer = await answered
            if answer != LOST:
                return answer
            await asyncio.sleep(0.1)


def _tell(future: "asyncio.Future[Any]", answer: Any) -> None:
    if not future.done():
        future.set_result(answer)


def _record(tp: TP, offset: int, content: Any, at_s: float) -> Record:
    return Record(*tp, offset, int((EPOCH_S + at_s) * 1000), content.key, content.value)
