"""Defect 2: an event's first outputs are committed while it is still being handled, without its offset."""

from pathlib import Path

from defects.kit import Bench, both_layers


@both_layers("the commit timer has no barrier: an open event's outputs commit without its offset")
def test_defect_02_an_unfinished_event_commits_nothing(
    broker: str, tmp_path: Path, unique_name: str, layer: str
) -> None:
    """Commits of other events carry nothing of an event that is not finished.

    The first commit makes the booking of `first` readable; the second one, of that booking, comes surely
    after `p1` sent its own.
    """
    with Bench(broker, tmp_path, unique_name, layer, "forward", broker_commit_interval=0.5) as bench:
        worker = bench.start()
        bench.send({"id": "first", "user": "bob"}, {"id": "p1", "stop_at": "booking sent"})
        worker.wait_for_line("p1 stops: booking sent")
        bench.wait_committed(1, "bookings")
        worker.kill()
        bench.start().say("go p1")
        bench.send({"id": "last"})
        assert ["first", "p1", "last"] == bench.ids("bookings")
        assert ["first", "p1", "last"] == bench.ids("results")
