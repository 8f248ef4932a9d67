"""Defect 10: the first event after the committed offset is passed over while its handler still runs."""

from pathlib import Path

from defects.books import books
from defects.kit import both_layers


@both_layers("_new_offset allows one missing offset after the committed one: 10 in flight, 11 acked gives 12")
async def test_defect_10_a_commit_stops_before_the_first_unfinished_event(tmp_path: Path, layer: str) -> None:
    """With 10 being handled, 11 finished, the next owner begins at 10; with both finished at 12."""
    async with books(layer, tmp_path, committed=10) as book:
        await book.deliver(10, 11)
        await book.finish(11)
        assert 10 == await book.commit()
        await book.finish(10)
        assert 12 == await book.commit()
