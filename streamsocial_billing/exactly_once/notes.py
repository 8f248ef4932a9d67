"""What goes beside each committed offset, as its metadata: the task's sources, how far its changelogs reach.

Both are written in the transaction of the offsets, so they are true whenever the offsets are.
"""

from collections.abc import Iterable, Mapping
from zlib import crc32

REACHED = "="  # begins an entry of a note that no topic can have as its name
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
    return longer if len(longer) <= NOTE_BYTES else note


def read_reached(notes: Iterable[str]) -> dict[str, int]:
    """How far each changelog reached at the last commit on record, by mark."""
    found: dict[str, int] = {}
    for entry in (entry for note in notes for entry in note.split(",") if entry[:1] == REACHED):
        mark, _, offset = entry[1:].partition(":")
        if offset.isdecimal():
            found[mark] = max(found.get(mark, 0), int(offset))
    return found
