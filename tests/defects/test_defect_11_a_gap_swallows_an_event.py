"""Defect 11: an event after a gap in the offsets counts as finished as soon as it is delivered."""

from pathlib import Path

from defects.books import books
from defects.kit import both_layers


@both_layers("_add_gap takes in the message's own offset: 12 in flight, 14 acked commits 15")
async def test_defect_11_a_gap_ends_before_the_event_that_follows_it(tmp_path: Path, layer: str) -> None:
    """Markers at 11, 13; 12 is being handled, 10 and 14 are finished: the next owner begins at 11 or 12."""
    async with books(layer, tmp_path, committed=10) as book:
        await book.deliver(10, 12, 14)
        await book.finish(10)
        await book.finish(14)
        assert await book.commit() in (11, 12)
        await book.finish(12)
        assert 15 == await book.commit()
