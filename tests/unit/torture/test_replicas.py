"""Which partitions lie where, for whoever reads segments."""

from __future__ import annotations

from pathlib import Path

from torture.replicas import OnlyBroker, leading_folders


def test_the_controller_s_own_log_is_no_partition_that_clients_know(tmp_path: Path) -> None:
    """One process that is broker and controller has it on its disk; asked for its end, Kafka knows no such
    topic."""
    names = "__cluster_metadata-0", "payments-0", "payments-1", "__consumer_offsets-3", "old-0.ab12-delete"
    for name in names:
        (tmp_path / name).mkdir()
    found = leading_folders(OnlyBroker(tmp_path, 9092))
    assert {("payments", 0), ("payments", 1), ("__consumer_offsets", 3)} == found.keys()
