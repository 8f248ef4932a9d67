"""Defect 12: the changelog offset that a database reaches is filed under one key, looked up under another."""

from __future__ import annotations

import re
from pathlib import Path

from defects.kit import Bench, Worker, both_layers

PAYMENTS = [{"id": f"p{number}"} for number in range(10)]


def reads_from(layer: str, bench: Bench, worker: Worker) -> int:
    """The changelog offset at which the worker began to read."""
    if layer == "plain":
        worker.wait_for_line("Reading Starts At")
        worker.wait_for_lines(r"-seen-changelog +\S 0 ", 2)  # in the tables of the ends, of the starts
        return int(re.findall(r"-?\d+", worker.lines(r"-seen-changelog +\S 0 ")[1])[-1]) + 1
    changelog = bench.topic("seen-changelog"), 0
    (recovered,) = re.findall(r"recovered (\d+)", worker.wait_for_line(r"recovered \d+ records"))
    return bench.cluster.log_ends([changelog])[changelog].stable - int(recovered)


@both_layers("on_commit_tp looks for the source partition, persist_offset_on_commit files the changelog's")
def test_defect_12_a_restarted_worker_reads_no_change_again(
    broker: str, tmp_path: Path, unique_name: str, layer: str
) -> None:
    """A worker killed after it committed ten changes begins to read behind them, its data being there."""
    with Bench(broker, tmp_path, unique_name, layer, "charge") as bench:
        worker = bench.start()
        bench.send(*PAYMENTS)
        bench.wait_committed(len(PAYMENTS))
        bench.send({"id": "behind"})
        bench.wait_committed(len(PAYMENTS) + 1)  # the database is written behind each commit, before the next
        worker.kill()
        assert len(PAYMENTS) <= reads_from(layer, bench, bench.start())
