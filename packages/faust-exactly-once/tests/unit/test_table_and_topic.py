"""What a handler, or code outside of one, may do with tables or topics."""

import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import faust
import pytest
from layer_kit.memory_kafka import Record

import faust_exactly_once as exactly_once
from faust_exactly_once import ForeignKey, NoUnit, Options, RecordTooLarge, Table, Topic, raws
from faust_exactly_once.assigned_task import AssignedTask
from faust_exactly_once.database import Identity, PartitionStore
from faust_exactly_once.facts import TopicFacts
from faust_exactly_once.layer import Layer
from faust_exactly_once.membership import Membership
from faust_exactly_once.units import Outgoing, Uncommitted, Unit, set_current_unit

OTHER_KEYS = ["", "other", "/ann", "annabel/1", " ann/1", "ann "]


class TaskOnDisk:
    """The part of a task that units and views read, on a real database."""

    accepting = True

    def __init__(self, store: PartitionStore) -> None:
        self.uncommitted: Uncommitted = {"t": {}}
        self.store = store
        self.committed = {"t": store.get}

    def committed_value(self, table: str, key: bytes) -> bytes | None:
        """The value in RocksDB."""
        return self.store.get(key)


class Scene:
    """An app on the layer, which owns partition 0 of 1; `unit` is what a handler of ann's event has."""

    def __init__(self, folder: Path, **table: Any) -> None:
        settings = exactly_once.settings(["kafka://127.0.0.1:1"])
        self.app = faust.App("unit-test", datadir=str(folder), **settings)
        self.layer = exactly_once.install(self.app, Options(client_config={}, max_record_bytes=2000))
        self.layer.partitions = 1
        self.table: Any = self.app.Table("t", partitions=1, **table)
        self.store = PartitionStore(folder / "t-0.db")
        self.store.open()
        self.store.adopt(Identity("c", "t", 0))
        task: Any = TaskOnDisk(self.store)
        self.layer.assigned_tasks[0] = AssignedTask(
            0, frozenset(), Membership("g", 1, "m"), "running", task=task
        )
        self.unit = Unit(task, Record("events", 0, 5, b"ann", b"{}"), 1, None, False)

    def topic(self, name: str = "results", **options: Any) -> Topic:
        """A topic to send to."""
        topic = self.app.topic(name, **options)
        assert isinstance(topic, Topic)
        return topic


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    made = Scene(tmp_path)
    yield made
    made.store.close()


@pytest.fixture
def handler(scene: Scene) -> Iterator[Scene]:
    """The same inside a handler."""
    set_current_unit(scene.unit)
    yield scene
    set_current_unit(None)


ACTS: dict[str, Callable[[Any, str], Any]] = {
    "get": lambda table, key: table.get(key),
    "item": lambda table, key: table[key],
    "contains": lambda table, key: key in table,
    "raw": lambda table, key: table.raw(key),
    "raws": lambda table, key: raws(key, table, table),
    "set": lambda table, key: table.__setitem__(key, 1),
    "delete": lambda table, key: table.__delitem__(key),
    "pop": lambda table, key: table.pop(key),
    "setdefault": lambda table, key: table.setdefault(key, 1),
}


@pytest.mark.parametrize("key", OTHER_KEYS)
@pytest.mark.parametrize("act", ACTS)
def test_a_handler_touches_no_key_of_another_owner(handler: Scene, act: str, key: str) -> None:
    """Only then can keys run concurrently (point 10)."""
    with pytest.raises(ForeignKey, match="belongs to"):
        ACTS[act](handler.table, key)
    assert [] == handler.unit.writes


@pytest.mark.parametrize("act", ACTS)
def test_an_event_without_a_key_owns_nothing(handler: Scene, act: str) -> None:
    """A record without a message key may be refused, never counted."""
    handler.unit.event = replace(handler.unit.event, key=None)
    with pytest.raises(ForeignKey):
        ACTS[act](handler.table, "ann/1")


def test_a_key_is_read_in_several_tables_at_once(handler: Scene) -> None:
    """What is committed, what the handler has written, what it has deleted; a table more than once, too."""
    handler.store.apply({b"ann/1": b"1", b"ann": b"2"}, 1)
    table = handler.table
    found = raws("ann/1", table, table), raws("ann", table), raws("ann/2", table)
    assert ([b"1", b"1"], [b"2"], [None]) == found
    table["ann/1"] = 3
    del table["ann"]
    assert ([b"3"], [None]) == (raws("ann/1", table), raws("ann", table))


def test_a_table_may_say_whose_a_key_is(tmp_path: Path) -> None:
    """Other key schemes than `owner/rest` are declared."""
    scene = Scene(tmp_path, owner=lambda key: key.rpartition(":")[2])
    set_current_unit(scene.unit)
    try:
        scene.table["1:ann"] = 7
        assert [b"7", b"7"] == raws("1:ann", scene.table, scene.table)
        for read in (scene.table.get, lambda key: raws(key, scene.table)):
            with pytest.raises(ForeignKey):
                read("ann/1")
    finally:
        set_current_unit(None)
        scene.store.close()
    assert [("t", b"1:ann", b"7")] == scene.unit.writes


def test_a_handler_reads_what_was_written_but_not_committed(handler: Scene) -> None:
    """The task's uncommitted values lie over the committed ones; nothing reaches the disk."""
    handler.store.apply({b"ann/1": b'"old"', b"ann/2": b'"old"', b"ann/3": b'"old"'}, 1)
    table = handler.table
    table["ann/1"] = "new"
    del table["ann/2"]
    assert ["new", None, "old", "none"] == [
        table.get("ann/1"),
        table.get("ann/2"),
        table["ann/3"],
        table.get("ann", "none"),
    ]
    assert [True, False, True, False] == [key in table for key in ("ann/1", "ann/2", "ann/3", "ann")]
    assert [False, False] == [key in table for key in (1, None)]
    with pytest.raises(KeyError):
        table["ann/2"]
    assert [("t", b"ann/1", b'"new"'), ("t", b"ann/2", None)] == handler.unit.writes
    assert [(b"ann/1", b'"old"')] == list(handler.store.items(b"ann/1"))
    assert b'"new"' == table.raw("ann/1")


def test_dict_methods_go_through_the_unit(handler: Scene) -> None:
    """`pop` and `setdefault` are reads or writes like any other."""
    assert [1, 1, 1] == [
        handler.table.setdefault("ann", 1),
        handler.table.setdefault("ann", 2),
        handler.table.pop("ann"),
    ]
    assert ("t", b"ann", None) == handler.unit.writes[-1]


def test_nobody_shares_a_mutable_value(handler: Scene) -> None:
    """Changing what was read or what was set changes nothing in the table."""
    value = {"n": [1]}
    handler.table["ann"] = value
    value["n"].append(2)
    handler.table["ann"]["n"].append(3)
    handler.table.get("ann")["x"] = 4
    assert {"n": [1]} == handler.table["ann"]


WHOLE: dict[str, Callable[[Any], Any]] = {
    "iter": lambda table: list(table),
    "len": len,
    "keys": lambda table: list(table.keys()),
    "values": lambda table: list(table.values()),
    "items": lambda table: list(table.items()),
    "popitem": lambda table: table.popitem(),
    "clear": lambda table: table.clear(),
    "update": lambda table: table.update({"ann": 1}),
}


@pytest.mark.parametrize("act", WHOLE)
def test_a_whole_table_is_no_part_of_a_unit(handler: Scene, act: str) -> None:
    """What goes over several keys, or past the unit, is refused inside a handler."""
    with pytest.raises(NoUnit, match="several keys|length"):
        WHOLE[act](handler.table)
    assert [] == handler.unit.writes


@pytest.mark.parametrize("act", WHOLE)
def test_a_whole_table_is_not_to_be_had_outside_a_handler_either(scene: Scene, act: str) -> None:
    """A worker has some partitions only."""
    scene.store.apply({b"ann": b"1"}, 1)
    with pytest.raises(NoUnit, match="several keys|length"):
        WHOLE[act](scene.table)
    assert [(b"ann", b"1")] == list(scene.store.items())


@pytest.mark.parametrize("act", ["set", "delete", "pop", "setdefault"])
def test_nothing_is_written_outside_a_handler(scene: Scene, act: str) -> None:
    """It would be in no transaction (point 1)."""
    scene.store.apply({b"ann": b"1"}, 1)
    with pytest.raises(NoUnit, match="outside a handler"):
        ACTS[act](scene.table, "new" if act == "setdefault" else "ann")


@pytest.mark.parametrize("act", ["set", "delete"])
def test_nothing_is_written_after_the_handler_has_ended(handler: Scene, act: str) -> None:
    """Its unit may be committed already."""
    handler.unit.finished = True
    with pytest.raises(NoUnit, match="outside a handler"):
        ACTS[act](handler.table, "ann")


def test_outside_a_handler_only_committed_values_are_read(scene: Scene) -> None:
    """A view never shows what may be taken back (point 5)."""
    scene.store.apply({b"ann": b"1"}, 1)
    scene.unit.write("t", b"ann", b"2")
    assert (1, True, b"1") == (scene.table["ann"], "ann" in scene.table, scene.table.raw("ann"))
    assert (None, False) == (scene.table.get("bob"), "bob" in scene.table)


@pytest.mark.parametrize("state", ["fencing", "recovering", "blocked", "closed"])
def test_a_task_that_is_not_running_is_not_read(scene: Scene, state: str) -> None:
    """A view answers 503 meanwhile, never a value that may be old."""
    scene.layer.assigned_tasks[0].state = state
    with pytest.raises(LookupError, match="not recovered yet"):
        scene.table.get("ann")
    scene.layer.assigned_tasks.clear()
    with pytest.raises(LookupError, match="not here"):
        scene.table.get("ann")


async def test_a_message_waits_in_the_unit(handler: Scene) -> None:
    """`send` returns when the unit has the record; keys, values go through the topic's serializers."""
    topic = handler.topic(key_type=str, value_serializer="json")
    await topic.send(key=b"k", value=b"v")
    await topic.send(key="k", value={"a": 1}, partition=2, timestamp=1.5, headers={"h": "x", "b": b"y"})
    assert [
        Outgoing("results", b"k", b"v"),
        Outgoing("results", b"k", b'{"a":1}', 2, [("h", b"x"), ("b", b"y")], 1500),
    ] == handler.unit.sends


async def test_headers_may_repeat(handler: Scene) -> None:
    """Kafka allows it; none is dropped."""
    await handler.topic().send(value=b"", headers=[("h", b"1"), ("h", b"2")])
    assert [("h", b"1"), ("h", b"2")] == handler.unit.sends[0].headers


@pytest.mark.parametrize("ended", [True, False])
async def test_a_message_outside_a_handler_is_refused(scene: Scene, ended: bool) -> None:
    """It would be in no transaction; nor may a handler's background task send later."""
    if ended:
        scene.unit.finished = True
        set_current_unit(scene.unit)
    try:
        with pytest.raises(NoUnit):
            await scene.topic().send(value=b"v")
    finally:
        set_current_unit(None)
    assert [] == scene.unit.sends


@pytest.mark.parametrize(("size", "fits"), [(1000, True), (1001, False)])
@pytest.mark.parametrize("part", ["key", "value", "headers"])
async def test_a_message_that_the_topic_would_refuse_is_refused(
    handler: Scene, part: str, size: int, fits: bool
) -> None:
    """The handler may dead-letter it instead; the limit is the topic's own (point 1)."""
    handler.layer.facts["results"] = TopicFacts("id", 1, {"max.message.bytes": "1512"})
    message: dict[str, Any] = {"key": None, "value": b""}
    message[part] = [("h", b"x" * (size - 1))] if part == "headers" else b"x" * size
    if fits:
        await handler.topic().send(**message)
    else:
        with pytest.raises(RecordTooLarge, match="1001 bytes for topic results, which takes 1000"):
            await handler.topic().send(**message)
    assert fits == (len(handler.unit.sends) == 1)


async def test_send_soon_is_refused(handler: Scene) -> None:
    """In Faust it goes past the transaction manager."""
    with pytest.raises(NoUnit, match="send_soon"):
        handler.topic().send_soon(key=b"k", value=b"v")


def test_a_layer_is_found_by_its_app_only() -> None:
    """Two apps in one process share nothing (defect 17)."""
    with pytest.raises(exactly_once.SetupRefused, match="install"):
        Layer.of(faust.App("not-installed"))


def test_the_table_class_is_the_layers(scene: Scene) -> None:
    """The settings put every table on the layer."""
    assert Table is type(scene.table)


def test_a_row_that_waits_for_its_commit_holds_its_own_length(handler: Scene) -> None:
    """What a serializer allocates beyond that, forty thousand units would hold: 300 MB."""
    row = {f"field_{number}": "x" * 10 for number in range(25)}
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for number in range(500):
            handler.table[f"ann/{number}"] = row
        each = (tracemalloc.get_traced_memory()[0] - before) / 500
    finally:
        tracemalloc.stop()
    assert each < 2_000
