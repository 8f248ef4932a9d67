"""What docs/analytics.md says can be done, over payments of real workers of which one died mid-commit."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from datetime import UTC
from pathlib import Path
from typing import Any

import duckdb
import pytest
from support.system import Payments, System, payment

from lab.analytics.books import RevenueBooks
from lab.analytics.movements import METRICS, RESULTS
from processes import ROOT

DOC = (ROOT / "docs/analytics.md").read_text(encoding="utf-8")
QUERY = (ROOT / "lab/analytics/revenue.sql").read_text(encoding="utf-8")


def blocks(kind: str) -> list[str]:
    """The blocks of a kind, as they stand."""
    return re.findall(rf"^```{kind}\n(.*?)^```", DOC, flags=re.MULTILINE | re.DOTALL)


def run(line: str, folder: Path, environment: dict[str, str]) -> str:
    """Run a line in a shell with this interpreter as `python`; its stdout."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    done = subprocess.run(
        ["bash", "-c", line], cwd=folder, env=environment | {"PATH": path}, capture_output=True, text=True,
        check=False, timeout=200,
    )  # fmt: skip
    assert 0 == done.returncode, f"{line}\n{done.stdout}{done.stderr}"
    return done.stdout


@pytest.mark.timeout(600)
def test_revenue_is_that_of_the_audit_in_every_way_that_the_document_shows(
    broker: str, tmp_path: Path, unique_name: str
) -> None:
    """SQLite, both topics, DuckDB, the audit: one sum. The aborted records are in read_uncommitted alone."""
    folder = tmp_path / "checkout"
    folder.mkdir()
    (folder / "lab").symlink_to(ROOT / "lab")
    with System(broker, tmp_path, unique_name, partitions=2) as system:
        sold = Payments(5).take(120)
        refunds = [
            payment(one.user_id, f"r-{one.payment_id}", action="refund", refund_of=one.payment_id,
                    amount_minor=one.amount_minor // 2, currency=one.currency, product=one.product)
            for one in sold[:20]
        ]  # fmt: skip
        system.submit(sold + refunds + refunds[:5])
        system.worker.start(crash_at=("before_commit", 2))
        system.worker.wait_killed()
        system.worker.start()
        system.wait_answered()
        report = system.audit()
        said = "".join(
            run(line, folder, system.worker.environment)
            for block in blocks("console system")
            for line in block.splitlines()
        )
        system.stop_workers()
    assert "payment-metrics: the same" in said
    revenue = {one: sums[0] - report.refunded.get(one, (0,))[0] for one, sums in report.money.items()}
    committed = RevenueBooks(folder / "data/analytics/revenue.sqlite")
    uncommitted = RevenueBooks(folder / "data/analytics/uncommitted.sqlite")
    assert revenue == committed.revenue(RESULTS) == committed.revenue(METRICS)
    assert sum(uncommitted.totals(RESULTS)[one][0] for one in revenue) > sum(
        committed.totals(RESULTS)[one][0] for one in revenue
    )
    in_sql = duckdb_in(folder / "data/export", QUERY)
    assert committed.lines(RESULTS) == [
        (int(at.replace(tzinfo=UTC).timestamp() * 1000), product, currency, charged, refunded)
        for at, product, currency, charged, refunded, _ in in_sql
    ]
    assert any(refunded for *_, refunded in committed.lines(RESULTS))
    for books in (committed, uncommitted):
        books.close()
    assert [charged - refunded for *_, charged, refunded, _ in in_sql] == [row[-1] for row in in_sql]
    same, differences = blocks("sql")
    assert QUERY == same
    assert [] == duckdb_in(folder / "data/export", differences)
    (python,) = blocks("python")
    assert "revenue_minor" in run(f"{sys.executable} -c '{python}'", folder, system.worker.environment)


def duckdb_in(folder: Path, query: str) -> list[tuple[Any, ...]]:
    """The rows of a query over the files of a folder."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        rows: list[tuple[Any, ...]] = duckdb.execute(query).fetchall()
        return rows
    finally:
        os.chdir(before)
