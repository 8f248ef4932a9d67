"""The older shape of a request is tried once, and only where the gateway knows its key with another."""

import pytest

from streamsocial_billing.domain.gateway_calls import (
    Ambiguous,
    Declined,
    Invalid,
    KeyMismatch,
    NotSent,
    Outcome,
    Succeeded,
)
from streamsocial_billing.gateways.request_shapes import newest_first

MISMATCH = KeyMismatch("idempotency_error")


async def called(*outcomes: Outcome, shapes: tuple[str, ...] = ("new", "old")) -> tuple[Outcome, list[str]]:
    """What came of calls that end so, one after the other; the shapes that were called."""
    seen: list[str] = []

    async def call(shape: str) -> tuple[Outcome, None]:
        seen.append(shape)
        return outcomes[len(seen) - 1], None

    outcome, _ = await newest_first(shapes, call)
    return outcome, seen


@pytest.mark.parametrize(
    "outcome",
    [Succeeded("ch_1"), Declined("lost"), Invalid("bad"), NotSent("unreachable"), Ambiguous("reset")],
)  # fmt: skip
async def test_any_other_answer_is_about_the_newest_shape(outcome: Outcome) -> None:
    """One call."""
    assert (outcome, ["new"]) == await called(outcome)


@pytest.mark.parametrize(
    ("outcome", "expected"),
    [
        (Succeeded("ch_1"), Succeeded("ch_1")),
        (Declined("lost"), Declined("lost")),
        (Ambiguous("reset"), Ambiguous("reset")),
        (NotSent("unreachable"), Ambiguous("older_shape_unreachable")),
        (Invalid("custom_id"), KeyMismatch("custom_id")),
        (MISMATCH, MISMATCH),
    ],
)
async def test_a_mismatch_is_answered_by_the_older_shape(outcome: Outcome, expected: Outcome) -> None:
    """The gateway knows the key: it was called, so nothing is proven unsent, nothing is invalid."""
    assert (expected, ["new", "old"]) == await called(MISMATCH, outcome)


async def test_a_request_that_never_changed_has_nothing_older() -> None:
    """Parked at once, as before."""
    assert (MISMATCH, ["only"]) == await called(MISMATCH, shapes=("only",))


async def test_each_older_shape_is_tried_once() -> None:
    """The newest of them first."""
    assert (Succeeded("ch_1"), ["3", "2", "1"]) == await called(
        MISMATCH, MISMATCH, Succeeded("ch_1"), shapes=("3", "2", "1")
    )


async def test_a_refusal_that_is_kept_under_the_key_is_its_answer() -> None:
    """It answers the very call that an older release made: nothing was charged."""
    stored = Invalid("resource_missing", stored=True)
    assert (stored, ["new", "old"]) == await called(MISMATCH, stored)
