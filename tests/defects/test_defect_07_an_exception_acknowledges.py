"""Defect 7: an exception in the agent acknowledges the event, then its half output is committed."""

from pathlib import Path

from defects.kit import Bench, both_layers


@both_layers("an exception in the agent acknowledges the event and commits its half output")
def test_defect_07_a_failed_event_is_handled_again(
    broker: str, tmp_path: Path, unique_name: str, layer: str
) -> None:
    """An event whose handler raises half-way, once, ends with all of its outputs, each once."""
    with Bench(broker, tmp_path, unique_name, layer, "forward") as bench:
        bench.start()
        bench.send({"id": "first"}, {"id": "p1", "fail_at": "booking sent"}, {"id": "last"})
        bench.wait_committed(3)
        assert ["first", "p1", "last"] == bench.ids("bookings")
        assert ["first", "p1", "last"] == bench.ids("results")
