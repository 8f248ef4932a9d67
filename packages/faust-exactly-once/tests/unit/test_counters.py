"""Counters of a task: what units add to them, who reads them."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import faust
import pytest
from hypothesis import given
from hypothesis import strategies as st
from layer_kit.memory_kafka import Record
from layer_kit.virtual_time import VirtualTimeLoop

import faust_exactly_once as exactly_once
from faust_exactly_once import Counters, NoUnit, Options
from faust_exactly_once.assigned_task import AssignedTask
from faust_exactly_once.commit import make_commit_batch
from faust_exactly_once.counters import RECORD, read, summed
from faust_exactly_once.database import Identity, PartitionStore
from faust_exactly_once.errors import StoreFailed
from faust_exactly_once.membership import Membership
from faust_exactly_once.task_stores import TaskStores, View
from faust_exactly_once.units import Unit, set_current_unit

NAMES = st.sampled_from(["events", "results", "money/EUR"])
ADDED = st.lists(st.lists(st.tuples(NAMES, st.integers(-(2**70), 2**70)), max_size=4), max_size=5)


class Scene:
    """An app with counters, which owns partition 0; units of different keys add to them."""

    def __init__(self, folder: Path) -> None:
        settings = exactly_once.settings(["kafka://127.0.0.1:1"])
        self.app = faust.App("unit-test", datadir=str(folder), **settings)
        self.layer = exactly_once.install(self.app, Options(client_config={}))
        self.layer.partitions = 2
        self.counters = exactly_once.counters(self.app, "sums", help="what was done")
        stores = {name: PartitionStore(folder / f"{name}-0.db") for name in ("sums", "rows")}
        for name, store in stores.items():
            store.open()
            store.adopt(Identity("c", name, 0))
        self.stores = TaskStores(stores)
        task: Any = TaskOnDisk(self.stores)
        self.task = task
        self.layer.assigned_tasks[0] = AssignedTask(
            0, frozenset(), Membership("g", 1, "m"), "running", task=task
        )

    def unit(self, key: bytes | None) -> Unit:
        """What the handler of an event with this key has; the running one from now on."""
        unit = Unit(self.task, Record("events", 0, 5, key, b"{}"), 1, None, False)
        set_current_unit(unit)
        return unit

    def commit(self, *units: Unit) -> None:
        """Write what they did."""
        batch = make_commit_batch([*units], {("events", 0): 6}, self.task.committed_value)
        self.stores.apply(batch.changes, dict.fromkeys(batch.changes, 1))


class TaskOnDisk:
    """The part of a task that counters and views read, on real databases."""

    accepting = True

    def __init__(self, stores: TaskStores) -> None:
        self.uncommitted: dict[Any, Any] = {}
        self.view = stores.view
        self._stores = stores

    def committed_value(self, table: str, key: bytes) -> bytes | None:
        """The value in RocksDB."""
        return self._stores.tables[table].get(key)


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    scene = Scene(tmp_path)
    yield scene
    set_current_unit(None)
    scene.stores.close()


def test_units_of_any_key_add_to_the_numbers_of_their_task(scene: Scene) -> None:
    """No key owns a counter, an event without a key counts too; a commit writes one record for them all."""
    units = []
    for key in (b"ann", b"bob", None):
        units.append(scene.unit(key))
        scene.counters.add("events")
        scene.counters.add("money/EUR", 250)
    set_current_unit(None)
    assert {} == scene.counters.of(0)
    scene.commit(*units)
    assert {"events": 3, "money/EUR": 750} == scene.counters.of(0)
    assert [(RECORD, b'{"events":3,"money/EUR":750}')] == list(scene.stores.tables["sums"].items())


def test_an_emptied_unit_has_counted_nothing(scene: Scene) -> None:
    """A handler that is tried again counts once."""
    unit = scene.unit(b"ann")
    scene.counters.add("events")
    unit.empty()
    scene.counters.add("events")
    scene.commit(unit)
    assert {"events": 1} == scene.counters.of(0)


def test_units_that_counted_nothing_write_no_sums(scene: Scene) -> None:
    """The record changes with a number, not with each commit."""
    batch = make_commit_batch([scene.unit(b"ann")], {("events", 0): 6}, scene.task.committed_value)
    assert {} == batch.changes


WAYS: list[Callable[[Counters], object]] = [
    lambda counters: counters["ann"],
    lambda counters: counters.get("ann"),
    lambda counters: counters.raw("ann"),
    lambda counters: "ann" in counters,
    lambda counters: counters.__setitem__("ann", 1),
    lambda counters: counters.__delitem__("ann"),
    lambda counters: counters.update(ann=1),
    lambda counters: list(counters),
]


@pytest.mark.parametrize("way", WAYS)
def test_a_unit_neither_reads_nor_sets_a_counter(way: Callable[[Counters], object], scene: Scene) -> None:
    """What others add at the same time would make it a guess."""
    scene.unit(b"ann")
    with pytest.raises(NoUnit):
        way(scene.counters)


@pytest.mark.parametrize(("name", "number"), [("events", 1.5), ("events", None), (7, 1), ("events", True)])
def test_what_cannot_be_summed_up_fails_in_its_handler(scene: Scene, name: Any, number: Any) -> None:
    """The event becomes a dead letter; in the commit it would stop its task, again after each opening."""
    unit = scene.unit(b"ann")
    with pytest.raises(TypeError):
        scene.counters.add(name, number)
    assert () == unit.counted


def test_nothing_is_counted_outside_a_handler(scene: Scene) -> None:
    """It would be in nobody's transaction."""
    with pytest.raises(NoUnit):
        scene.counters.add("events")


def test_a_task_that_is_elsewhere_has_no_numbers_here(scene: Scene) -> None:
    """Whoever asks is told so, instead of zero."""
    with pytest.raises(LookupError):
        scene.counters.of(1)


@given(ADDED)
def test_sums_are_those_of_python_however_large(added: list[list[tuple[str, int]]]) -> None:
    """No 64 bits: money counted for years must not stop a task."""
    record: bytes | None = None
    model: dict[str, int] = {}
    for commit in added:
        numbers: dict[str, int] = {}
        for name, number in commit:
            numbers[name] = numbers.get(name, 0) + number
            model[name] = model.get(name, 0) + number
        record = summed(record, numbers)
    assert model == read(record)


def test_a_view_shows_one_commit_whatever_is_committed_meanwhile(scene: Scene) -> None:
    """Rows and sums of the same moment, although rows are replaced, added, deleted before they are read."""
    before = {b"%03d" % number: b"old" for number in range(300)}
    scene.stores.apply({"rows": dict(before), "sums": {RECORD: b'{"rows":300}'}}, {"rows": 1, "sums": 1})
    view = scene.stores.view(["rows", "sums"])
    rows = view.take("rows", 100)
    scene.stores.apply(
        {"rows": {b"150": b"new", b"200": None, b"250x": b"more"}, "sums": {RECORD: b'{"rows":301}'}},
        {"rows": 2, "sums": 2},
    )
    while more := view.take("rows", 77):
        rows += more
    assert (before, [(RECORD, b'{"rows":300}')]) == (dict(rows), view.take("sums", 10))


def test_a_task_that_ends_takes_its_views_along(scene: Scene, tmp_path: Path) -> None:
    """An iterator left behind would keep the database locked for the next epoch in this process."""
    scene.stores.apply({"rows": {b"a": b"1", b"b": b"2"}}, {"rows": 1})
    view = scene.stores.view(["rows"])
    assert [(b"a", b"1")] == view.take("rows", 1)
    scene.stores.close()
    with pytest.raises(StoreFailed):
        view.take("rows", 1)
    with pytest.raises(StoreFailed):
        scene.stores.view(["rows"])
    again = PartitionStore(tmp_path / "rows-0.db")
    assert again.open() is None
    again.close()


def test_the_layer_views_tasks_that_run_here(scene: Scene) -> None:
    """None for a task that is elsewhere, or closes this moment."""
    loop = VirtualTimeLoop()
    here = loop.run_until_complete(scene.layer.view(0, ["rows"]))
    elsewhere = loop.run_until_complete(scene.layer.view(1, ["rows"]))
    scene.stores.close()
    closing = loop.run_until_complete(scene.layer.view(0, ["rows"]))
    assert (True, None, None) == (isinstance(here, View), elsewhere, closing)
    loop.end()
