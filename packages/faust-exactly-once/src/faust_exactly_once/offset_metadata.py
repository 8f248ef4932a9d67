"""The metadata of each committed offset: the task's sources, how far its changelogs reach.

Both are written in the transaction of the offsets, so they are true whenever the offsets are.
"""

from collections.abc import Iterable, Iterator, Mapping
from zlib import crc32

REACHED = "="  # begins an entry that no topic can have as its name
ROOM_FOR_OFFSET = 40
METADATA_BYTES = 4096  # the broker's default of offset.metadata.max.bytes


def read_sources(of_offsets: Iterable[str]) -> frozenset[str]:
    """The sources that a task has ever read, by the metadata of its offsets; empty if not on record."""
    return frozenset(name for name in _entries(of_offsets) if name and name[0] != REACHED)


def make_metadata(sources: Iterable[str]) -> str:
    """The metadata of each offset; empty where there is no room: a missing offset is then refused later."""
    metadata = ",".join(sorted(sources))  # no topic name has a comma
    return metadata if len(metadata) <= METADATA_BYTES else ""


def changelog_tag(changelog: str, topic_id: str) -> str:
    """A short name of a changelog; one that was created anew has another."""
    return f"{crc32(f'{changelog} {topic_id}'.encode()):08x}"


def with_reached(metadata: str, reached: Mapping[str, int]) -> str:
    """Metadata that also say how far the task's changelogs reached, by tag; without, if there is no room.

    A release that does not know of it takes it for the name of a source that nobody has: it must not be the
    only one, or sources that are not on record would count as never read.
    """
    if not metadata:
        return metadata
    longer = ",".join([metadata, *(f"{REACHED}{tag}:{offset}" for tag, offset in reached.items())])
    return longer if len(longer) + ROOM_FOR_OFFSET <= METADATA_BYTES else metadata


def at_offset(metadata: str, source: str, offset: int) -> str:
    """Metadata that say with which offset they were written: an older release hands old entries on."""
    return f"{metadata},{_written_with(source, offset)}" if REACHED in metadata else metadata


def is_of_offset(metadata: str, source: str, offset: int) -> bool:
    """True if what the metadata say of changelogs was written with this very offset."""
    return _written_with(source, offset) in metadata.split(",")


def _entries(of_offsets: Iterable[str]) -> Iterator[str]:
    return (entry for metadata in of_offsets for entry in metadata.split(","))


def _written_with(source: str, offset: int) -> str:
    return f"{REACHED}@{crc32(source.encode()):08x}@{offset}"


def read_reached(of_offsets: Iterable[str]) -> dict[str, int]:
    """How far each changelog reached at the last commit on record, by tag."""
    found: dict[str, int] = {}
    for entry in (entry for entry in _entries(of_offsets) if entry[:1] == REACHED):
        tag, _, offset = entry[1:].partition(":")
        if offset.isdecimal():
            found[tag] = max(found.get(tag, 0), int(offset))
    return found
