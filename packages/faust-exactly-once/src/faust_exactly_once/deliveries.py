"""What became of the records of one transaction."""

from confluent_kafka import KafkaError, Message

from .librdkafka_errors import FENCED, REFUSED


class Deliveries:
    """What became of one transaction's records.

    Each transaction has its own: reports of records that an abort purged may come during the next one.
    """

    def __init__(self) -> None:
        self.queued = 0
        self.confirmed = 0
        self.refused: list[tuple[KafkaError, Message]] = []
        self.reached: dict[str, int] = {}

    def on_record(self, error: KafkaError | None, message: Message) -> None:
        """A record was delivered, or not."""
        if error is None:
            self.confirmed += 1
        else:
            self.refused.append((error, message))

    def on_change(self, error: KafkaError | None, message: Message) -> None:
        """A changelog record was delivered, or not."""
        if error is None:
            self.reached[message.topic() or ""] = (message.offset() or 0) + 1
        self.on_record(error, message)

    def in_doubt(self) -> int:
        """How many records may yet get into the log: neither confirmed nor refused for what they are."""
        definite = sum(1 for error, _ in self.refused if error.code() in REFUSED)
        return self.queued - self.confirmed - definite

    def worst(self) -> tuple[KafkaError, Message] | None:
        """The failed record that decides: librdkafka purges what is queued beside a refused one."""
        for codes in (FENCED, REFUSED):
            found = next((one for one in self.refused if one[0].code() in codes), None)
            if found is not None:
                return found
        return self.refused[0] if self.refused else None
