"""The very first commit of a task may fail like any other: the task goes on by itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from defects.inside import Ours, append, cluster_with

from faust_exactly_once import current_unit
from faust_exactly_once.errors import OutcomeUnknown


@pytest.mark.parametrize("point", ["between_sends", "before_offsets", "before_commit"])
async def test_a_task_whose_first_commit_failed_begins_again(
    point: str, broker: str, tmp_path: Path, unique_name: str
) -> None:
    """Aborted records in the changelog are no content: without any committed offset no operator is needed."""
    changelog, failures = f"{unique_name}-t-changelog", ["once"]
    cluster = cluster_with(broker, unique_name, changelog)

    def probe(reached: str) -> None:
        if reached == point and failures:
            raise OutcomeUnknown(f"as the test wants, {failures.pop()}")

    async def handle(event: Any) -> None:
        current_unit().write("t", event.key, event.value)

    append(broker, unique_name, "a", "b")
    async with Ours(tmp_path, unique_name, broker, probe=probe) as ours:
        ours.app.Table("t")
        await ours.layer.learn([changelog])
        await ours.join(unique_name)
        for _ in range(2):
            for batch in await ours.fetch():
                await batch.each(handle)
        await ours.layer.supervisor.revoke()
    assert {(unique_name, 0): 2} == cluster.committed(unique_name, [(unique_name, 0)])
