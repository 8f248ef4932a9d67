"""Defect 5: the changelog's end is a cached value that is not there yet after an assignment."""

from collections import Counter
from pathlib import Path

from defects.kit import READY, Bench, Worker, both_layers

PARTITIONS = 2
PAYMENTS = [{"id": f"p{number}", "user": f"user-{number}"} for number in range(20)]


@both_layers("the changelog's end is a cached value, None after an assignment: recovery is skipped")
def test_defect_05_a_task_that_moves_brings_its_table(
    broker: str, tmp_path: Path, unique_name: str, layer: str
) -> None:
    """When a worker leaves, the one that gets its partitions knows every payment that was committed there.

    Without standbys, as on our layer: with them plain Faust crashes here by ConsistencyError. What is cached
    comes with a fetch, and an idle consumer's last one is asked for up to 1.5 s (`fetch_max_wait_ms`): a
    payment just before and quick heartbeats put the whole rebalance into that time.
    """
    with Bench(
        broker, tmp_path, unique_name, layer, "charge", partitions=PARTITIONS, table_standby_replicas=0,
        broker_heartbeat_interval=0.3,
    ) as bench:  # fmt: skip
        leaving, staying = bench.start("w1"), bench.start("w2")
        bench.send(*PAYMENTS)
        bench.wait_committed(len(PAYMENTS))
        already = len(staying.lines(READY))
        bench.send({"id": "just before", "user": user_handled_by(staying)})
        staying.wait_for_line("handled just before")
        leaving.stop()
        staying.wait_for_lines(READY, already + 1)
        bench.send(*PAYMENTS)
        bench.wait_for_count("results", 2 * len(PAYMENTS) + 1)
        statuses = Counter(value["status"] for value in bench.read("results"))
        assert len(PAYMENTS) + 1 == statuses["charged"]


def user_handled_by(worker: Worker) -> str:
    """A user whose partition the worker has."""
    worker.wait_for_line("handled p")
    return "user-" + worker.lines("handled p")[-1].rpartition("p")[2]
