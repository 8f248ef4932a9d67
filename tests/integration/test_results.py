"""`results` on a real Kafka: which results it prints, what a terminal shows meanwhile."""

from __future__ import annotations

import errno
import os
import pty
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from support.producers import idempotent_producer
from support.system import System
from support.until import until

from faust_exactly_once import partition_of
from streamsocial_billing.settings import RESULTS

DAY_MS = 86_400_000
NOON_MS = 1_772_452_800_000  # 2026-03-02 12:00 UTC
USERS = 6
DAYS = 4
STATUSES = ("succeeded", "declined", "unknown")


def result(user: int, day: int) -> dict[str, Any]:
    """The result of the payment of a user on a day."""
    number = user * DAYS + day
    return {
        "payment_id": f"p{number}", "user_id": f"user-{user}", "status": STATUSES[number % 3],
        "gateway": ("simulated", "stripe")[number % 2], "product": ("gift", "subscription")[day % 2],
        "processed_at": NOON_MS + day * DAY_MS, "resolves": False, "source": None,
    }  # fmt: skip


ALL = [result(user, day) for user in range(USERS) for day in range(DAYS)]


@pytest.fixture(scope="module")
def system(broker: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """Results on the log, and nobody else."""
    with System(broker, tmp_path_factory.mktemp("results"), "results-of-all", partitions=4) as system:
        producer = idempotent_producer(system.settings.bootstrap)
        for one in ALL:
            key = one["user_id"].encode()
            producer.produce(system.settings.topic(RESULTS), orjson.dumps(one), key)
        assert 0 == producer.flush(60)
        producer.close()
        yield system


def results(system: System, *arguments: str, **more: Any) -> subprocess.CompletedProcess[str]:
    """Run `streamsocial-billing results ...`."""
    return subprocess.run(
        [*system.worker.program, "results", *arguments], env=system.worker.environment, text=True,
        check=False, timeout=150, **{"capture_output": True, **more},
    )  # fmt: skip


def wanted(out: str) -> set[str]:
    """The payment_ids of what was printed, each once."""
    found = [orjson.loads(line)["payment_id"] for line in out.splitlines()]
    assert len(found) == len(set(found))
    return set(found)


@pytest.mark.timeout(600)
def test_each_filter_prints_what_meets_it_and_several_what_meets_all(system: System) -> None:
    """An integrator asks for a payment, an analyst for statuses, products, days."""
    cases: dict[tuple[str, ...], Any] = {
        (): lambda one: True,
        ("--user", "user-1"): lambda one: one["user_id"] == "user-1",
        ("--payment", "p7"): lambda one: one["payment_id"] == "p7",
        ("--status", "declined", "--status", "unknown"): lambda one: one["status"] != "succeeded",
        ("--gateway", "stripe", "--product", "gift"):
            lambda one: (one["gateway"], one["product"]) == ("stripe", "gift"),
        ("--since", "2026-03-03", "--until", "2026-03-04T12:00"): lambda one: one["payment_id"] in {
            f"p{number}" for number in range(1, USERS * DAYS, DAYS)
        },
        ("--user", "nobody"): lambda one: False,
    }  # fmt: skip
    for arguments, meets in cases.items():
        done = results(system, *arguments)
        assert (0, "") == (done.returncode, done.stderr)
        assert {one["payment_id"] for one in ALL if meets(one)} == wanted(done.stdout), arguments


def test_a_wrong_filter_is_named(system: System) -> None:
    """Exit code 2, one line: silence would read as "there are none"."""
    for arguments in (("--status", "success"), ("--since", "yesterday"), ("--gateway", "bank")):
        done = results(system, *arguments)
        assert (2, "", 1) == (done.returncode, done.stdout, done.stderr.count("\n"))
        assert arguments[1] in done.stderr


def all_of(terminal: int) -> str:
    """What was written to the other end, up to its end: the kernel hands it over late, in pieces."""
    found = b""
    try:
        while piece := os.read(terminal, 100_000):
            found += piece
    except OSError as end:
        assert errno.EIO == end.errno
    return found.decode()


@pytest.mark.timeout(600)
def test_a_terminal_shows_how_far_the_reading_is(system: System) -> None:
    """On stderr, gone at the end; of one user only that user's partition is counted."""
    places = [partition_of(one["user_id"].encode(), 4) for one in ALL]
    home = places.count(partition_of(b"user-1", 4))
    assert 0 < home < len(ALL)
    for arguments, total in (((), len(ALL)), (("--user", "user-1"), home)):
        ours, theirs = pty.openpty()
        done = results(system, *arguments, capture_output=False, stdout=subprocess.PIPE, stderr=theirs)
        os.close(theirs)
        shown = all_of(ours)
        os.close(ours)
        assert re.match(rf"\r\d+ of {total} records read", shown)
        assert shown.endswith("\r\x1b[K")
        assert done.stdout == results(system, *arguments).stdout


@pytest.mark.timeout(600)
def test_a_filter_counts_while_results_are_followed(system: System, tmp_path: Path) -> None:
    """What is there already comes first; what is not wanted does not come."""
    with (tmp_path / "out").open("wb") as out:
        following = subprocess.Popen(
            [*system.worker.program, "results", "--follow", "--user", "user-2", "--status", "succeeded"],
            env=system.worker.environment, stdout=out,
        )  # fmt: skip
    try:
        expected = {one["payment_id"] for one in ALL if one["user_id"] == "user-2"}
        expected &= {one["payment_id"] for one in ALL if one["status"] == "succeeded"}
        until(lambda: wanted((tmp_path / "out").read_text().rpartition("\n")[0]) == expected, "all printed")
    finally:
        following.terminate()
        following.wait(60)
