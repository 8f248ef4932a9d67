"""Comments, docstrings and documents name nothing that is not there."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest
from support.references import (
    DECISION,
    NAME,
    PATH,
    POINT,
    ROOT,
    Line,
    anchors,
    lines,
    named,
    text_of,
    titles,
    words_of_code,
)

OF_FAUST: Final = frozenset({
    "transport/consumer.py", "transport/producer.py", "transport/drivers/aiokafka.py", "stores/rocksdb.py",
    "app/base.py", "streams.py", "tables/recovery.py", "tables/manager.py",
})  # fmt: skip
"""Files of Faust, in the page of its defects."""
OF_READERS: Final = frozenset({
    "points.py", "send.py", "read.py", "index.md", "decisions/index.md", "table.md",
})  # fmt: skip
"""Files that a reader of the tutorial writes, that the site makes, that a run is asked to write."""
ELSEWHERE: Final = OF_FAUST | OF_READERS
OF_OTHERS: Final = frozenset({
    # Faust, rocksdict, filelock
    "filelock", "WriteOptions.disable_wal",
    "ProducerBuffer", "ProducerBuffer.put", "TransactionManager.transactional_id_format", "Snapshot",
    "_highwaters", "_trn_locks", "_on_autodiscovery_error", "clear_on_resume", "ConsistencyError",
    # Kafka, librdkafka
    "StreamsProducerTest", "rd_kafka_consumer_group_metadata_write", "rdkafka_txnmgr.c", "rdkafka_request.c",
    "transactional.id.expiration.ms", "broker.rack", "client.rack", "String.hashCode", "Utils.abs",
    # Stripe
    "tok_", "src_", "Webhook.construct_event", "payouts.itemized", "payout_reconciliation.itemized",
    "balance_change_from_activity.itemized", "return_url", "setup_future_usage",
    # PayPal
    "checkout_orders_v2.json", "payments_payment_v2.json", "vault_payment_tokens_v3.json",
    "PAYPAL_REQUEST_ID_REQUIRED",
})  # fmt: skip
PATTERNS: Final = frozenset({"NAME_iso", "NAME_at_ms", "NAME_at_iso"})
OTHERS: Final = OF_OTHERS | PATTERNS
BUILT: Final = re.compile(r"exactly_once_\w+|billing_\w+|process_\w+|BILLING_\w+")
"""Metrics and settings, whose names are put together; tests of their pages compare them with the code."""


def dangling(check: Callable[[Line], list[str]]) -> list[str]:
    """What a check finds, line by line."""
    return [f"{missing} in {line}" for line in lines() for missing in check(line)]


def _files(line: Line) -> list[str]:
    paths = [found["path"] for found in PATH.finditer(line.text)]
    return [path for path in paths if path not in ELSEWHERE and not named(path)]


def test_every_file_that_is_named_exists() -> None:
    """By any end of its path: `audit/checks.py` will do."""
    assert [] == dangling(_files)


def _headings(line: Line) -> list[str]:
    missing = []
    for found in PATH.finditer(line.text):
        pages = named(found["path"])
        if found["anchor"] and not any(found["anchor"] in anchors(page) for page in pages):
            missing.append(f"{found['path']}#{found['anchor']}")
        if found["title"] and not any(found["title"] in titles(page) for page in pages):
            missing.append(f'{found["path"]}, "{found["title"]}"')
    return missing


def test_every_heading_that_is_named_exists() -> None:
    """As an anchor (`payments.md#refunds`), or by its words (payments.md, "Refunds")."""
    assert [] == dangling(_headings)


def _tests(line: Line) -> list[str]:
    return [
        found[0]
        for found in PATH.finditer(line.text)
        if found["test"] and not any(_defines(file, found["test"]) for file in named(found["path"]))
    ]


def _defines(file: Path, function: str) -> bool:
    return f"def {function}(" in text_of(file)


def test_every_test_that_is_named_exists() -> None:
    """The file, and the function in it."""
    assert [] == dangling(_tests)


DECISIONS: Final = {int(path.name[:4]) for path in (ROOT / "docs" / "decisions").glob("0*.md")}


def _decisions(line: Line) -> list[str]:
    numbers = [found["number"] for found in DECISION.finditer(line.text)]
    return [number for number in numbers if int(number) not in DECISIONS]


def test_every_decision_that_is_named_exists() -> None:
    """By its number."""
    assert [] == dangling(_decisions)


def points() -> frozenset[str]:
    """The numbers of the contract, its sub-points with their letters."""
    page = (ROOT / "packages/faust-exactly-once/docs/contract.md").read_text(encoding="utf-8")
    section = page.split("## The points")[1].split("## The commit")[0]
    found, number = set(), ""
    for one, part in re.findall(r"^(?:(\d+)\. |   - \*\*([a-e])\.\*\* )", section, flags=re.MULTILINE):
        number = one or number
        found.add(number + part)
    return frozenset(found)


POINTS: Final = points()


def _points(line: Line) -> list[str]:
    named = [found["number"] + (found["part"] or "") for found in POINT.finditer(line.text)]
    return [point for point in named if point not in POINTS]


def test_every_point_of_the_contract_that_is_named_exists() -> None:
    """The layer's contract has thirteen; one of them has parts, with letters."""
    assert {str(number) for number in range(1, 14)} | {f"9{part}" for part in "abcde"} == POINTS
    assert [] == dangling(_points)


def _names(line: Line) -> list[str]:
    missing = []
    for found in NAME.finditer(line.text):
        name, known = found["name"], words_of_code()
        if name in OTHERS or BUILT.fullmatch(name):
            continue
        if not all(part in known for part in name.split(".")):
            missing.append(name)
    return missing


def test_every_name_of_code_that_is_quoted_exists() -> None:
    """In back quotes: a class, a function, a field, a word of a text; not only in comments."""
    assert [] == dangling(_names)


@pytest.mark.parametrize(
    ("check", "text"),
    [
        (_files, "see docs/interface.md"), (_files, "as in gone/decision.py says"),
        (_headings, "payments.md#no-such-heading"), (_headings, 'payments.md, "No Such Heading"'),
        (_tests, "tests/unit/repository/test_references.py::test_that_is_gone"),
        (_decisions, "decision 0999"), (_points, "(point 14)"), (_points, "(point 4a)"),
        (_names, "`no_such_function(row)`"), (_names, "`Books.no_such_method`"),
    ],
)  # fmt: skip
def test_what_is_not_there_is_found(check: Callable[[Line], list[str]], text: str) -> None:
    """Each check, on a line that names something that does not exist."""
    assert 1 == len(check(Line(Path("x.py"), 1, text)))
