"""Defect 13: what goes wrong with a transaction is logged, then treated as done."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Protocol

from aiokafka.errors import KafkaError
from defects.inside import NOBODY, Plain, cluster_with, producer_of
from defects.kit import both_layers

from faust_exactly_once.errors import TaskFenced
from faust_exactly_once.producer import ConfluentProducer
from faust_exactly_once.units import Outgoing


class Transactions(Protocol):
    """What a consumer has its transactions from; each answer is True if it was called done."""

    async def commit(self) -> bool:
        """Commit an offset."""

    async def begin(self) -> bool:
        """Begin a transaction."""


class OurTransactions:
    """The layer's producer."""

    def __init__(self, producer: ConfluentProducer, topic: str) -> None:
        self._producer, self._topic = producer, topic

    async def commit(self) -> bool:
        """Steps 5, 6 of a commit."""
        return self._is_done(self._commit)

    async def begin(self) -> bool:
        """Step 1 of a commit."""
        return self._is_done(self._producer.begin_transaction)

    def _commit(self) -> None:
        self._producer.add_offsets({(self._topic, 0): 1}, NOBODY)
        self._producer.commit_transaction()

    def _is_done(self, call: Callable[[], None]) -> bool:
        try:
            call()
        except TaskFenced:
            return False
        return True


class PlainTransactions:
    """Faust's transaction manager."""

    def __init__(self, plain: Plain, topic: str) -> None:
        self._plain, self._topic = plain, topic

    async def commit(self) -> bool:
        """What the consumer's commit does."""
        return bool(await self._plain.transactions.commit({self._plain.tp(self._topic): 1}))

    async def begin(self) -> bool:
        """What an assignment does."""
        try:
            await self._plain.begin(self._topic)
        except KafkaError:
            return False
        return True


@asynccontextmanager
async def our_transactions(broker: str, topic: str) -> AsyncIterator[Transactions]:
    """The layer's, with a record in an open transaction."""
    producer = producer_of(broker, f"{topic}-0-0")
    producer.init_transactions()
    producer.begin_transaction()
    producer.send([Outgoing(topic, b"k", b"v")])
    producer.confirm()
    try:
        yield OurTransactions(producer, topic)
    finally:
        producer.close()


@asynccontextmanager
async def plain_transactions(broker: str, topic: str, folder: Path) -> AsyncIterator[Transactions]:
    """Faust's, with a record in an open transaction."""
    async with Plain(folder, topic, broker) as plain:
        await plain.begin(topic)
        await plain.send(topic, b"v")
        yield PlainTransactions(plain, topic)


@asynccontextmanager
async def fenced(layer: str, broker: str, topic: str, folder: Path) -> AsyncIterator[Transactions]:
    """Those of a worker whose transactional id another producer has taken."""
    cluster_with(broker, topic)
    ours, plain = our_transactions(broker, topic), plain_transactions(broker, topic, folder)
    async with ours if layer == "ours" else plain as transactions:
        other = producer_of(broker, f"{topic}-0-0")
        other.init_transactions()
        other.close()
        yield transactions


@both_layers("ProducerFenced is logged, then TransactionManager.commit answers True")
async def test_defect_13_a_fenced_commit_is_an_error_for_its_caller(
    broker: str, tmp_path: Path, unique_name: str, layer: str
) -> None:
    """Whoever commits after another producer took the transactional id is told that nothing was committed."""
    async with fenced(layer, broker, unique_name, tmp_path) as transactions:
        assert not await transactions.commit()


@both_layers("begin_transaction logs whatever goes wrong, then returns")
async def test_defect_13_a_failed_begin_is_an_error_for_its_caller(
    broker: str, tmp_path: Path, unique_name: str, layer: str
) -> None:
    """Whoever begins with a fenced producer is told that no transaction is open."""
    async with fenced(layer, broker, unique_name, tmp_path) as transactions:
        if layer == "ours":
            assert not await transactions.commit()
        assert not await transactions.begin()
