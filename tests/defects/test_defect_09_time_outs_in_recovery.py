"""Defect 9: a recovery waits out two time-outs of 5 s, for a changelog ends in a control record, always."""

from __future__ import annotations

import re
from datetime import datetime
from pathlib import Path

from defects.kit import Bench, Worker, both_layers

PAYMENTS = [{"id": f"p{number}"} for number in range(10)]
MOST_S = 4.0
"""Less than one of the two time-outs: a machine that does much else is slow, too."""
TRIES = {"ours": 3, "plain": 1}
"""Another process may take the CPU for seconds, not each time."""


def recovery_s(layer: str, worker: Worker) -> float:
    """How long the worker took to read the changelog, once it had fenced or decided to."""
    if layer == "ours":
        line = worker.wait_for_line(r"recovered \d\d records in \d+ ms")
        return int(re.findall(r"(\d+) ms", line)[-1]) / 1000
    lines = map(worker.wait_for_line, ("Restoring state from changelog", "Done reading from changelog"))
    begin, end = (datetime.strptime(line[1:24], "%Y-%m-%d %H:%M:%S,%f") for line in lines)
    return (end - begin).total_seconds()


@both_layers("_slurp_changelogs ends a recovery that lacks the control record after two time-outs of 5 s")
def test_defect_09_ten_changes_are_recovered_without_a_time_out(
    broker: str, tmp_path: Path, unique_name: str, layer: str
) -> None:
    """A worker without local state has the ten changes of a changelog as soon as they are read.

    The delay hides defect 5, by which Faust mostly skips the recovery: it lets the fetcher learn the end.
    """
    with Bench(broker, tmp_path, unique_name, layer, "charge", stream_recovery_delay=3.0) as bench:
        bench.start()
        bench.send(*PAYMENTS)
        bench.wait_committed(len(PAYMENTS))
        for attempt in range(TRIES[layer]):
            bench.workers[-1].kill()
            took_s = recovery_s(layer, bench.start(f"empty-{attempt}"))
            if took_s < MOST_S:
                break
        assert took_s < MOST_S
