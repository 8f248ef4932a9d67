"""The first start of two workers at once on an empty cluster, twenty times."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.first_start import first_start, wait_all_run

from broker.cluster import LocalCluster

RUNS = 20


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize("run", range(1, RUNS + 1))
def test_both_workers_live_from_their_first_start_on_an_empty_cluster(
    run: int, tmp_path: Path, unique_name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Three new brokers without any topic, theirs included: both are ready with a share, all tasks run."""
    with LocalCluster(tmp_path / "kafka", port=0) as cluster:
        with first_start(cluster.bootstrap, tmp_path / "workers", unique_name) as workers:
            took_s = wait_all_run(workers, within_s=240)
    with capsys.disabled():
        print(f"run {run} of {RUNS}: both ready after {took_s:.1f} s")
