"""Kafka places groups and transactional ids by Java's hash of their names."""

from __future__ import annotations

import pytest

from broker.leaders import java_hash


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", 0),
        ("hello", 99162322),
        ("Hello, World!", 1498789909),
        ("polygenelubricants", 0),  # its hash is the lowest number, which has no positive one
        ("\N{GRINNING FACE}", 1772899),  # two UTF-16 units
    ],
)
def test_the_hash_is_that_of_java_made_positive(text: str, expected: int) -> None:
    """String.hashCode over UTF-16 units in 32 bits, then Kafka's Utils.abs."""
    assert expected == java_hash(text)
