"""The page about questions to Kafka has every question that we put, says where, and for how long."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final, NamedTuple

from faust_exactly_once.answers import CONFIRM_S, START_S, UNKNOWN_TOPIC_S

ROOT = Path(__file__).resolve().parents[3]
PAGE = (ROOT / "docs/kafka-questions.md").read_text(encoding="utf-8")
BELOW = {"torture": ROOT, "faust_exactly_once": ROOT / "packages/faust-exactly-once/src"}


class Question(NamedTuple):
    """A row of the page.

    Attributes:
        name: as in the first column.
        asked_in: the file, below `streamsocial_billing/` unless it begins with `torture/` or
            `faust_exactly_once/`.
        within_s: for how long it is put again there, in seconds; 0 where that is its caller's part.
    """

    name: str
    asked_in: str
    within_s: float = 0.0


QUESTIONS: Final = (
    Question("cluster id", "faust_exactly_once/cluster.py"),
    Question("session bounds", "faust_exactly_once/cluster.py"),
    Question("topics", "faust_exactly_once/cluster.py"),
    Question("topic settings", "faust_exactly_once/cluster.py"),
    Question("create topics", "faust_exactly_once/cluster.py", START_S),
    Question("log ends", "faust_exactly_once/cluster.py"),
    Question("committed offsets", "faust_exactly_once/cluster.py"),
    Question("start of a worker", "faust_exactly_once/start.py", START_S),
    Question("fence", "faust_exactly_once/producer.py"),
    Question("changelog has the last commit", "faust_exactly_once/task_facts.py"),
    Question("offsets of the last commit", "faust_exactly_once/task_facts.py", CONFIRM_S),
    Question("where a task starts", "faust_exactly_once/task_facts.py", CONFIRM_S),
    Question("changelog behind its database", "faust_exactly_once/opening.py", CONFIRM_S),
    Question("changelogs stable", "faust_exactly_once/stable_ends.py", 30.0),
    Question("changelog has records", "faust_exactly_once/recovery.py", 30.0),
    Question("changelog records", "faust_exactly_once/recovery.py", 30.0),
    Question("send records", "faust_exactly_once/producer.py", UNKNOWN_TOPIC_S),
    Question("add offsets", "faust_exactly_once/producer.py"),
    Question("commit", "faust_exactly_once/producer.py"),
    Question("abort", "faust_exactly_once/producer.py"),
    Question("partition counts", "faust_exactly_once/partition_counts.py"),
    Question("fetch", "faust_exactly_once/consumer_thread.py"),
    Question("which brokers answer", "faust_exactly_once/brokers.py"),
    Question("settings for production", "kafka/production_checks.py"),
    Question("questions of commands", "kafka/committed.py", 15.0),
    Question("records of a reader", "kafka/committed.py", 30.0),
    Question("records followed", "kafka/committed.py"),
    Question("fence of a writer", "kafka/transactions.py", 14.0),
    Question("records of a writer", "kafka/transactions.py", 14.0),
    Question("commit of a writer", "kafka/transactions.py", 14.0),
    Question("outcome of a commit", "kafka/transactions.py", 3.0),
    Question("replayed before", "operations/dead_letters.py", 14.0),
    Question("gateway events", "intake/webhooks/appending.py", 3.5),
    Question("who answers", "kafka/answering_brokers.py", 1.5),
    Question("topics of a torture run", "torture/system.py", 60.0),
    Question("who leads, who is in sync", "torture/replicas.py"),
    Question("offsets kept and put back", "torture/group.py", 60.0),
    Question("answered so far", "torture/watch.py"),
    Question("drained", "torture/run.py", 60.0),
    Question("markers forgotten", "torture/markers.py"),
    Question("what a run left", "torture/judge.py", 120.0),
)


def below(question: Question) -> Path:
    """The folder in which the row's file lies."""
    return BELOW.get(question.asked_in.split("/")[0], ROOT / "streamsocial_billing")


def rows() -> list[list[str]]:
    """The cells of each row of the page's tables that names a question."""
    lines = [line for line in PAGE.splitlines() if re.match(r"\| \*\*", line)]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


def test_the_page_names_every_question_of_the_code_in_its_order() -> None:
    """Neither has one that the other does not have; each names the same file."""
    page = [(cells[0].strip("*"), cells[1].strip("`")) for cells in rows()]
    assert [(question.name, question.asked_in) for question in QUESTIONS] == page


def test_the_page_says_how_long_each_question_is_put_again() -> None:
    """The seconds of the code stand in the row."""
    for question, cells in zip(QUESTIONS, rows(), strict=True):
        assert 6 == len(cells), question.name
        if question.within_s:
            assert f"{question.within_s:g} s" in cells[4], question.name


def test_every_file_that_a_row_names_exists() -> None:
    """A row whose code has moved would be of no use."""
    for question in QUESTIONS:
        assert (below(question) / question.asked_in).is_file(), question
