"""Topics whose `send` hands the message to the handler's unit."""

from collections.abc import Mapping
from typing import Any
from weakref import WeakKeyDictionary

import faust

from .errors import ExactlyOnceError, NoUnit, RecordTooLarge
from .layer import Layer
from .units import Outgoing, current_unit, find_unit

_tuple: Any = tuple.__new__  # makes a named tuple without a call of Python's


class Topic(faust.Topic):
    """A Faust topic inside the exactly-once layer."""

    def __init__(self, *args: Any, batches: bool = False, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.batches = batches
        self._limit: int | None = None

    def _clone_args(self) -> Any:
        return {**super()._clone_args(), "batches": self.batches}

    async def send(  # type: ignore[override]
        self, *, key: Any = None, value: Any = None, partition: int | None = None,
        timestamp: float | None = None, headers: Any = None, schema: Any = None, key_serializer: Any = None,
        value_serializer: Any = None, callback: Any = None, force: bool = False,
    ) -> None:  # fmt: skip
        """Hand a message to the unit of the running handler; it is sent in the unit's transaction.

        Args:
            key: bytes, or what the topic's key serializer takes.
            value: bytes, or what the topic's value serializer takes.
            partition: None: murmur2 of the key, as Java and Faust do.
            timestamp: seconds since the epoch; None: the time of the commit.
            schema, key_serializer, value_serializer: as for any Faust topic.
            callback: refused: the record is confirmed with its transaction, after the handler.
            force: as it is; there is nothing to force.

        Raises:
            NoUnit: outside a handler.
            RecordTooLarge: above the topic's `max.message.bytes`.
        """
        if callback is not None:
            raise NoUnit(f"a callback of a send to {self} would come after its unit: leave it out")
        added: Any = {}  # by the serializers
        if not isinstance(key, bytes):
            key, added = self.prepare_key(key, key_serializer, schema, added)
        if not isinstance(value, bytes):
            value, added = self.prepare_value(value, value_serializer, schema, added)
        timestamp_ms = None if timestamp is None else int(timestamp * 1000)
        self.put_into_unit(key, value, partition, [*_pairs(headers), *added.items()], timestamp_ms)

    def put_into_unit(
        self, key: bytes | None, value: bytes | None, partition: int | None = None,
        headers: Any = None, timestamp_ms: int | None = None,
    ) -> None:  # fmt: skip
        """What `send` does, without its coroutine; for handlers that send much."""
        unit = find_unit()
        if unit is None or unit.finished:
            unit = current_unit()  # which says why there is none
        size = (len(key) if key else 0) + (len(value) if value else 0)
        if headers:
            headers = [(k, v if isinstance(v, bytes) else str(v).encode()) for k, v in _pairs(headers)]
            size += sum(len(k) + len(v) for k, v in headers)
        name = self.topics[0]
        if self._limit is None:
            self._limit = Layer.of(self.app).record_limit(name)
        if size > self._limit:
            raise RecordTooLarge(f"{size} bytes for topic {name}, which takes {self._limit}")
        unit.sends.append(_tuple(Outgoing, (name, key, value, partition, headers or None, timestamp_ms)))
        unit.added += size

    def send_soon(self, **_: Any) -> Any:
        """Refuse: Faust sends this past the transaction manager (point 1)."""
        raise NoUnit("send_soon goes past every transaction: await send() inside a handler")

    async def declare(self) -> None:
        """Refuse to create anything here: the app's topics are created and checked before the start."""

    async def decode_record(self, record: Any) -> Any:
        """The Faust event of a record; a plain agent's unit begins with this.

        Raises:
            KeyDecodeError, ValueDecodeError: as Faust names them; the unit fails.
        """
        message = self.app.consumer.message_of(record)  # type: ignore[attr-defined]
        return await self.decode(message, propagate=True)

    async def batch_put(self, event: Any) -> None:
        """Give the agent a batch.

        Raises:
            ExactlyOnceError: if nobody iterates this topic.
        """
        if not self.is_iterator:
            raise ExactlyOnceError(f"no agent reads {self}")
        await self.queue.put(event)


def _pairs(headers: Any) -> list[tuple[str, Any]]:
    """Headers as pairs: a name may come twice."""
    return list(headers.items() if isinstance(headers, Mapping) else headers or ())


def output(app: Any, name: str) -> Topic:
    """Declare a topic that handlers send to, so that `send` knows the largest record it takes."""
    topic: Topic = app.topic(name)
    _outputs.setdefault(app, []).append(topic)
    return topic


def outputs(app: Any) -> list[Topic]:
    """The output topics of an app."""
    return _outputs.get(app, [])


_outputs: WeakKeyDictionary[Any, list[Topic]] = WeakKeyDictionary()


def batched(topic: Any) -> Any:
    """Mark a source topic: its agent takes whole batches of a task (point 12).

    Use: `words = batched(app.topic("words"))`.
    """
    topic.batches = True
    return topic
