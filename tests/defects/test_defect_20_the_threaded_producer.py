"""Defect 20: with producer_threaded table changes and all else in Faust's buffer go out untransacted."""

from __future__ import annotations

from pathlib import Path

from defects.kit import READY, Bench, Trouble, Worker, both_layers


@both_layers("the threaded producer has no transactional id")
def test_defect_20_a_threaded_producer_sends_nothing_of_an_unfinished_event(
    broker: str, tmp_path: Path, unique_name: str, layer: str
) -> None:
    """No committed reader sees a table change of an event that is being handled: the layer refuses to start.

    The commit interval is long, so that no commit of Faust's (defects 2, 3) shows the change either.
    """
    settings = {"producer_threaded": True, "broker_commit_interval": 60.0}
    with Bench(broker, tmp_path, unique_name, layer, "charge") as bench:
        worker = Worker(bench, "w1", settings)
        bench.workers.append(worker)
        worker.start()
        said = worker.wait_for_line(f"{READY}|switch it off")
        if layer == "ours":
            assert "producer_threaded sends everything outside transactions: switch it off" in said
            return
        bench.send({"id": "p1", "stop_at": "stored"})
        worker.wait_for_line("p1 stops: stored")
        assert not is_seen(bench, "seen-changelog")


def is_seen(bench: Bench, topic: str) -> bool:
    """True as soon as a committed reader sees any record, False after 5 s without one."""
    try:
        bench.wait_for_value(topic, lambda value: True, within_s=5.0)
    except Trouble:
        return False
    return True
