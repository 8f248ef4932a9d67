"""The log lines of outcomes: written many at once, each as if it had been logged alone."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamsocial_billing.domain.results import ChargeResult
from streamsocial_billing.logs import writing
from streamsocial_billing.logs.json_lines import JsonFormatter
from streamsocial_billing.logs.lines import TextFormatter
from streamsocial_billing.logs.masking import Mask
from streamsocial_billing.logs.writing import Writer
from streamsocial_billing.payments.outcome_lines import OUTCOMES, Lines, log_outcomes

AT_S = 1_764_600_000.123
SOURCE = {"topic": "payments", "partition": 3, "offset": 70}
IDS = st.text("abcXYZ019_-", min_size=1, max_size=20) | st.just("-")
REASONS = st.none() | st.text(max_size=12) | st.sampled_from(["declined", "a b", 'say "no"', "x=1", "\n"])


def result(**fields: Any) -> ChargeResult:
    """One as of a charge that succeeded, but for these fields."""
    usual: dict[str, Any] = {
        "payment_id": "p1", "user_id": "u1", "action": "charge", "product": "gift", "status": "succeeded",
        "reason": None, "replayed": False, "amount_minor": 499, "currency": "USD", "gateway": "simulated",
        "gateway_ref": "ch_1", "attempt": 1, "requested_at": 1, "processed_at": 2, "source": SOURCE,
    }  # fmt: skip
    return ChargeResult(**(usual | fields))


def outcomes(*results: ChargeResult) -> list[Any]:
    """As a commit reports them."""
    return [(SimpleNamespace(partition=3, offset=71), (one,)) for one in results]


RESULTS = st.builds(
    result, payment_id=IDS, user_id=IDS, reason=REASONS, replayed=st.booleans(), resolves=st.booleans(),
    status=st.sampled_from(["succeeded", "declined"]), source=st.sampled_from([None, SOURCE]),
    attempt=st.integers(0, 9),
)  # fmt: skip


@pytest.fixture
def attached() -> Iterator[Any]:
    """Attaches handlers to the logger of outcomes, which has no others."""
    before = OUTCOMES.handlers[:], OUTCOMES.propagate, OUTCOMES.level
    OUTCOMES.propagate, OUTCOMES.level = False, logging.INFO
    ours: list[logging.Handler] = []

    def attach(handler: logging.Handler) -> None:
        ours.append(handler)
        OUTCOMES.handlers[:] = ours

    yield attach
    OUTCOMES.handlers[:], OUTCOMES.propagate, OUTCOMES.level = before


@given(st.lists(RESULTS, min_size=1, max_size=4))
def test_lines_are_those_of_records_that_are_formatted_one_by_one(results: list[ChargeResult]) -> None:
    """Who greps the log finds the same words, whichever way they were written."""
    formatter, lines = TextFormatter(), Lines(outcomes(*results), AT_S)
    one_by_one = [f"{formatter.format(lines.record(place))}\n" for place in range(len(lines))]
    assert one_by_one == [line for line, _ in lines.texts(formatter.time_text(AT_S))]


OUR_WORDS = ["charge", "succeeded", "declined", "payment_id", "user_id", "2025", "attempt=1", "task", "INFO"]


@pytest.fixture(scope="module")
def writer() -> Writer:
    """Writes nowhere; a mask can be put into it."""
    return Writer(lambda text: None, TextFormatter(), Mask())


@given(
    st.lists(RESULTS, min_size=1, max_size=4),
    st.lists(st.text("abc019", min_size=4, max_size=4) | st.sampled_from(OUR_WORDS), max_size=2),
)
def test_lines_are_masked_as_records_are(
    writer: Writer, results: list[ChargeResult], secrets: list[str]
) -> None:
    """Whatever a secret is, a word of ours too: looking at what is foreign in a line is enough."""
    formatter, lines, mask = TextFormatter(), Lines(outcomes(*results), AT_S), Mask(secrets)
    writer._mask = mask  # noqa: SLF001 - each one of its own would have a thread
    one_by_one = [lines.record(place) for place in range(len(lines))]
    for record in one_by_one:
        mask.filter(record)
    expected = "".join(f"{formatter.format(record)}\n" for record in one_by_one)
    assert expected == writer._lines(lines)  # noqa: SLF001 - what its thread writes


def test_a_commit_is_one_write(attached: Any) -> None:
    """With each outcome on a line of its own."""
    written: list[str] = []
    writer = Writer(written.append, TextFormatter(), Mask())
    attached(writer)
    log_outcomes(outcomes(result(), result(payment_id="p2", status="declined", reason="card_declined")))
    writer.flush()
    first, second = "".join(written).splitlines()
    assert first.endswith(
        " INFO outcome charge succeeded payment_id=p1 user_id=u1 action=charge status=succeeded task=3 "
        "offset=70 attempt=1"
    )
    assert "payment_id=p2 user_id=u1 action=charge status=declined reason=card_declined" in second
    assert 1 == len(written)


def test_what_may_be_secret_is_masked_in_its_line(attached: Any) -> None:
    """A gateway's reason is foreign text: it may hold anything."""
    written: list[str] = []
    writer = Writer(written.append, TextFormatter(), Mask(["hunter2hunter2"]))
    attached(writer)
    card = result(payment_id="p2", reason="4242424242424242")
    log_outcomes(outcomes(result(), card, result(reason="hunter2hunter2")))
    writer.flush()
    text = "".join(written)
    assert 3 == text.count("\n")
    assert "4242424242424242" not in text
    assert "hunter2" not in text
    assert "payment_id=p2" in text


def test_json_has_the_fields_of_each(attached: Any) -> None:
    """A collector gets an object for each outcome."""
    written: list[str] = []
    writer = Writer(written.append, JsonFormatter(), Mask())
    attached(writer)
    log_outcomes(outcomes(result(replayed=True), result(payment_id="p2")))
    writer.flush()
    first, second = map(json.loads, "".join(written).splitlines())
    assert ("p1", True, "p2") == (first["payment_id"], first["replayed"], second["payment_id"])
    assert "replayed" not in second


def test_other_handlers_get_records(attached: Any) -> None:
    """Sentry and the like know nothing of many lines at once; one above INFO gets nothing."""
    seen: list[logging.LogRecord] = []

    class Keeps(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            seen.append(record)

    attached(Keeps())
    attached(Keeps(logging.WARNING))
    log_outcomes(outcomes(result(), result(payment_id="p2")))
    assert ["p1", "p2"] == [record.__dict__["payment_id"] for record in seen]


def test_lines_beyond_the_bound_are_counted(attached: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader that does not read costs memory for so many lines, not more; the next line says it."""
    monkeypatch.setattr(writing, "MOST_WAITING", 3)
    released, written = threading.Event(), list[str]()

    def write(text: str) -> None:
        released.wait(10)
        written.append(text)

    writer = Writer(write, TextFormatter(), Mask())
    attached(writer)
    for _ in range(4):
        log_outcomes(outcomes(result(), result()))
    released.set()
    writer.flush()
    log_outcomes(outcomes(result()))
    writer.flush()
    text = "".join(written)
    assert "lines are missing here" in text
    lost = int(text.split(" lines are missing here")[0].rsplit(" ", 1)[1])
    assert 9 == text.count("outcome charge succeeded") + lost
    assert lost >= 2


def test_a_line_that_cannot_be_written_does_not_end_the_log(attached: Any) -> None:
    """It is said; what comes next is written."""
    written: list[str] = []
    writer = Writer(written.append, TextFormatter(), Mask())
    attached(writer)
    log_outcomes([(None, (result(),))])  # type: ignore[list-item]
    log_outcomes(outcomes(result(payment_id="p2")))
    writer.flush()
    text = "".join(written)
    assert "lines cannot be written: AttributeError" in text
    assert "payment_id=p2" in text
