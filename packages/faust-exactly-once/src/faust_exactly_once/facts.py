"""What is known of a topic, of a partition's log."""

from collections.abc import Mapping
from dataclasses import dataclass

TP = tuple[str, int]

DEFAULT_MAX_MESSAGE_BYTES = 1_048_588  # Kafka's own default of max.message.bytes


@dataclass(frozen=True, slots=True)
class LogEnds:
    """One partition's log: first offset, last stable offset (read_committed end), high watermark."""

    start: int
    stable: int
    high: int


@dataclass(frozen=True, slots=True)
class TopicFacts:
    """A topic's id, partition count and the settings that the layer depends on."""

    topic_id: str
    partitions: int
    config: Mapping[str, str]

    @property
    def max_message_bytes(self) -> int:
        """The largest record batch the topic takes."""
        return int(self.config.get("max.message.bytes", DEFAULT_MAX_MESSAGE_BYTES))
