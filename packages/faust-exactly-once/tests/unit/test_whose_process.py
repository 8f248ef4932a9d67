"""What a worker changes for its whole process, and that it can be told not to."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import faust
import pytest

import faust_exactly_once as exactly_once
from faust_exactly_once import Options
from faust_exactly_once.worker import Worker


@pytest.fixture
def thresholds() -> Iterator[tuple[int, int, int]]:
    """Those of the garbage collector, afterwards as they were."""
    before = gc.get_threshold()
    yield before
    gc.set_threshold(*before)
    gc.unfreeze()


@pytest.mark.parametrize("owns", [True, False])
def test_the_collector_is_left_alone_in_a_process_with_other_work(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, thresholds: tuple[int, int, int], owns: bool
) -> None:
    """`owns_process` is for workers that are alone in theirs, as those of the command line are."""

    async def nothing(*_: Any) -> None:
        pass

    app = faust.App("process", datadir=str(tmp_path), **exactly_once.settings(["kafka://127.0.0.1:1"]))
    layer = exactly_once.install(app, Options(client_config={}, owns_process=owns))
    monkeypatch.setattr(faust.Worker, "on_first_start", nothing)
    monkeypatch.setattr(layer, "learn", nothing)
    worker = Worker.__new__(Worker)
    worker.app = app
    asyncio.run(worker.on_first_start())
    assert owns == (thresholds != gc.get_threshold())
