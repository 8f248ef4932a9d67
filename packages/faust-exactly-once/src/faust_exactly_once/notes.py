"""What goes beside each committed offset, as its metadata: the task's sources, how far its changelogs reach.

Both are written in the transaction of the offsets, so they are true whenever the offsets are.
"""

from collections.abc import Iterable, Mapping
from zlib import crc32

REACHED = "="  # begins an entry of a note that no topic can have as its name
ROOM_FOR_OFFSET = 40
NOTE_BYTES = 4096  # the broker's default of offset.metadata.max.bytes


def read_note(notes: Iterable[str]) -> frozenset[str]:
    """The sources that a task has ever read, by the notes beside its offsets; empty if not on record."""
    return frozenset(name for note in notes for name in note.split(",") if name and name[0] != REACHED)


def make_note(sources: Iterable[str]) -> str:
    """What goes beside each offset; nothing, so that a later gap is refused, where the broker has no room."""
    note = ",".join(sorted(sources))  # no topic name has a comma
    return note if len(note) <= NOTE_BYTES else ""


def mark_of(changelog: str, topic_id: str) -> str:
    """A short name of a changelog; one that was created anew has another."""
    return f"{crc32(f'{changelog} {topic_id}'.encode()):08x}"


def with_reached(note: str, reached: Mapping[str, int]) -> str:
    """A note that also says how far the task's changelogs reached, by mark; without, where there is no room.

    A release that does not know of it takes it for the name of a source that nobody has: it must not be the
    only one, or sources that are not on record would count as never read.
    """
    if not note:
        return note
    longer = ",".join([note, *(f"{REACHED}{mark}:{offset}" for mark, offset in reached.items())])
    return longer if len(longer) + ROOM_FOR_OFFSET <= NOTE_BYTES else note


def at_offset(note: str, source: str, offset: int) -> str:
    """A note with what says that it was written with this offset: a release before hands old entries on."""
    return f"{note},{_written_with(source, offset)}" if REACHED in note else note


def is_of_offset(note: str, source: str, offset: int) -> bool:
    """True if what a note says of changelogs was written with this very offset."""
    return _written_with(source, offset) in note.split(",")


def _written_with(source: str, offset: int) -> str:
    return f"{REACHED}@{crc32(source.encode()):08x}@{offset}"


def read_reached(notes: Iterable[str]) -> dict[str, int]:
    """How far each changelog reached at the last commit on record, by mark."""
    found: dict[str, int] = {}
    for entry in (entry for note in notes for entry in note.split(",") if entry[:1] == REACHED):
        mark, _, offset = entry[1:].partition(":")
        if offset.isdecimal():
            found[mark] = max(found.get(mark, 0), int(offset))
    return found
