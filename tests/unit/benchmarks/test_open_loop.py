"""The load generator of `python -m benchmarks own posts`."""

from __future__ import annotations

import math

import pytest

from benchmarks.open_loop import Answered, request, whole_answer
from benchmarks.posts import charged, latencies

ANSWER = b"HTTP/1.1 202 Accepted\r\nContent-Length: 2\r\nServer: x\r\n\r\n{}"


def test_an_answer_is_whole_with_its_last_byte() -> None:
    """Not before."""
    assert [None] * len(ANSWER) == [whole_answer(ANSWER[:end]) for end in range(len(ANSWER))]
    assert 202 == whole_answer(ANSWER)


def test_a_request_has_its_key_and_length() -> None:
    """As the worker wants them."""
    sent = request("/payments", "p1", b"{}")
    assert sent.startswith(b"POST /payments HTTP/1.1\r\n")
    assert b"\r\nIdempotency-Key: p1\r\nContent-Length: 2\r\n\r\n{}" in sent


def test_what_was_not_answered_is_in_the_percentiles() -> None:
    """A request without an answer is the slowest of all."""
    figures = latencies(Answered([202] * 98 + [503, 0], [5.0] * 98 + [7.0, math.inf], 2.0, 0.5))
    assert (98, 100, 49) == tuple(figures[n] for n in ("acknowledged", "of", "acknowledged_a_second"))
    assert (5.0, 7.0, math.inf) == tuple(figures[n] for n in ("p50_ms", "p99_ms", "max_ms"))
    assert {"503": 1, "0": 1} == figures["other_answers"]
    assert (5000, 0.25) == (figures["generator_us_a_post"], figures["generator_cores"])


@pytest.mark.parametrize(("ids", "expected"), [
    (["a", "b"], (2, 2, 0, 0)), (["a"], (1, 1, 1, 0)), (["a", "a", "b"], (2, 2, 0, 1)),
    (["a", "b", "c"], (2, 2, 0, 0)),
])  # fmt: skip
def test_each_acknowledged_one_is_charged_once(ids: list[str], expected: tuple[int, ...]) -> None:
    """Never and twice are named; one that was not acknowledged may be charged."""
    moved = [{"payment_id": name, "processed_at": 5} for name in ids]
    assert expected == tuple(charged(moved, {"a", "b"}, 5).values())
    assert 0 == charged(moved, {"a", "b"}, 4)["charged_by_the_end"]
