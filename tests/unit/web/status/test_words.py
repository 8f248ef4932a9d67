"""Numbers, lists, lengths of time in a sentence."""

from __future__ import annotations

import pytest

from streamsocial_billing.domain.english import counted, lasting, listed, partitions


def test_one_is_singular_and_thousands_are_set_apart() -> None:
    """As English writes it."""
    assert ["0 payments", "1 payment", "1,200 payments"] == [counted(n, "payment") for n in (0, 1, 1200)]
    assert "2 boxes" == counted(2, "box", "boxes")


def test_numbers_in_a_row_are_one_range() -> None:
    """Sixteen partitions are a few signs."""
    assert ["", "3", "0-2, 5, 7-8"] == [listed(n) for n in ([], [3], [8, 7, 5, 0, 1, 2, 2])]
    assert ["partition 3", "partitions 0-15"] == [partitions(n) for n in ([3], range(16))]


@pytest.mark.parametrize(("seconds", "text"), [
    (-1, "0 s"), (0, "0 s"), (59.9, "59 s"), (60, "60 s"), (119, "119 s"), (120, "2 min"), (7199, "119 min"),
    (7200, "2 h"), (172_799, "47 h"), (172_800, "2 days"),
])  # fmt: skip
def test_a_length_of_time_has_one_unit(seconds: float, text: str) -> None:
    """Enough to know how bad it is."""
    assert text == lasting(seconds)
