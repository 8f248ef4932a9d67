"""Defect 6: a rebalance drops acknowledgements, keeps the transaction, handles the events into it again."""

from collections import Counter
from pathlib import Path

from defects.kit import Bench, both_layers, user_of_each

NO_TIMER_S = 60.0
PARTITIONS = 2


@both_layers("a rebalance drops acks before the last commit, events run again into the open transaction")
def test_defect_06_a_rebalance_without_a_crash_doubles_nothing(
    broker: str, tmp_path: Path, unique_name: str, layer: str
) -> None:
    """Events that are handled, or under way, when the group rebalances have their outputs once.

    `broker_commit_interval` keeps plain Faust's timer away, which would be defect 2; its stops commit.
    """
    ann, bob = user_of_each(PARTITIONS)
    with Bench(
        broker, tmp_path, unique_name, layer, "forward", partitions=PARTITIONS,
        broker_commit_interval=NO_TIMER_S,
    ) as bench:  # fmt: skip
        worker = bench.start()
        bench.send({"id": "a0", "user": ann}, {"id": "b0", "user": bob})
        worker.wait_for_lines("handled", 2)
        worker.stop()
        bench.wait_committed(2)
        worker = bench.start()
        bench.send({"id": "handled", "user": ann})
        worker.wait_for_line("handled handled")
        bench.send({"id": "under way", "user": bob, "stop_at": "booking sent"})
        worker.wait_for_line("under way stops: booking sent")
        worker.say("rejoin")
        worker.wait_for_lines("Revoking previously assigned", 2)
        worker.say("go under way")
        bench.send({"id": "a1", "user": ann}, {"id": "b1", "user": bob})
        worker.wait_for_line("handled a1")
        worker.wait_for_line("handled b1")
        worker.stop()
        once = dict.fromkeys(("a0", "b0", "handled", "under way", "a1", "b1"), 1)
        assert once == Counter(value["id"] for value in bench.read("bookings"))
        assert once == Counter(value["id"] for value in bench.read("results"))
