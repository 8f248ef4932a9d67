"""Defect 1: outputs to a topic that the app does not read go out in no transaction."""

from pathlib import Path

from defects.kit import Bench, both_layers


@both_layers("a topic the app does not subscribe to gets no transaction (TransactionManager.send)")
def test_defect_01_an_output_is_in_the_transaction_of_its_event(
    broker: str, tmp_path: Path, unique_name: str, layer: str
) -> None:
    """What a killed handler had sent is seen by no committed reader; its next handling sends it once."""
    with Bench(broker, tmp_path, unique_name, layer, "forward") as bench:
        worker = bench.start()
        bench.send({"id": "p1", "stop_at": "result sent"})
        worker.wait_for_line("p1 stops: result sent")
        bench.give_time("results", 1)
        worker.kill()
        bench.start().say("go p1")
        bench.send({"id": "last"})
        assert ["p1", "last"] == bench.ids("results")
