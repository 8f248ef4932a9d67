"""Defect 3: a commit carries an offset whose table changes are still in a queue."""

from pathlib import Path

from defects.kit import Bench, both_layers

LINES = 5000


@both_layers("changelog records are sent later by a background task; a commit does not wait for it")
def test_defect_03_a_commit_carries_the_changelog_records_of_its_offset(
    broker: str, tmp_path: Path, unique_name: str, layer: str
) -> None:
    """When an offset is committed, so is every table change of the events before it.

    `broker_commit_every` lets plain Faust commit when the next event arrives, not up to 2.8 s later.
    """
    with Bench(broker, tmp_path, unique_name, layer, "invoice", broker_commit_every=1) as bench:
        worker = bench.start()
        bench.send({"id": "p1", "lines": LINES}, {"id": "p2", "stop_at": "stored"})
        worker.wait_for_line("p2 stops: stored")
        bench.wait_committed(1)
        worker.kill()
        bench.settle()
        keys = [message.key() or b"" for message in bench.messages("rows-changelog")]
        kept = [key for key in keys if b"/p1/" in key]
        assert LINES == len(kept)
