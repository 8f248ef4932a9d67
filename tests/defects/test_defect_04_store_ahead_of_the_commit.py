"""Defect 4: RocksDB is written at once; nothing takes it back when the event was never committed."""

from pathlib import Path

from defects.kit import Bench, both_layers


@both_layers("RocksDB is written before the commit: after kill -9 the event is known, but has no output")
def test_defect_04_a_payment_is_not_known_before_it_is_committed(
    broker: str, tmp_path: Path, unique_name: str, layer: str
) -> None:
    """After kill -9 between the table write and the commit the event is handled as new."""
    with Bench(broker, tmp_path, unique_name, layer, "charge") as bench:
        worker = bench.start()
        bench.send({"id": "p1", "stop_at": "stored"})
        worker.wait_for_line("p1 stops: stored")
        worker.kill()
        bench.start().say("go p1")
        bench.send({"id": "last"})
        bench.wait_for_value("results", lambda value: "last" == value["id"])
        statuses = [(value["id"], value["status"]) for value in bench.read("results")]
        assert [("p1", "charged"), ("last", "charged")] == statuses
