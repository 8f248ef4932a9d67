"""The broker: topics, transaction coordinator, group; what a request does when it arrives."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from confluent_kafka import KafkaError

from faust_exactly_once.facts import TP

from .clock import Clock
from .group import Group
from .log import NO_OFFSET, OK, Content, Log, StoredOffset, Transaction

EMPTY, ONGOING = "empty", "ongoing"
PREPARE = {True: "prepare-commit", False: "prepare-abort"}
COMPLETE = {True: "complete-commit", False: "complete-abort"}
DECISION = {True: "commit", False: "abort"}
MARKER_S = (0.0005, 0.003)
CACHE_S = 0.03  # how late the cache of offsets learns of a marker
CLEAN_UP_S = 1.0  # how often the broker looks for transactions that nobody ends
DAY_MS = 86_400_000


@dataclass(slots=True)
class Identity:
    """What the coordinator knows of a transactional id."""

    pid: int
    timeout_s: float
    epoch: int = 0
    state: str = EMPTY
    partitions: dict[TP, None] = field(default_factory=dict)
    with_offsets: bool = False
    transaction: Transaction | None = None
    markers: int = 0
    ended_epoch: int = -1


class Broker:
    """One broker that leads every partition, coordinates every transaction, the one group.

    With `epoch_per_transaction` (KIP-890) each transaction of a producer has an epoch of its own, so that a
    request that belongs to an earlier one is refused whenever it arrives.

    Attributes:
        decided: called with each transaction at the moment of its decision.
        refuses: how often a record is still refused, by the part of its value before "/".
        slow_markers_s: how long markers take at most while it is set.
    """

    def __init__(
        self, clock: Clock, topics: Mapping[str, int], partitions: int, *, epoch_per_transaction: bool
    ):
        self.clock = clock
        self.up = True
        self.topics = dict(topics)
        self.logs = {(name, p): Log((name, p)) for name, count in topics.items() for p in range(count)}
        self.group = Group(clock, partitions)
        self.epoch_per_transaction = epoch_per_transaction
        self.ids: dict[str, Identity] = {}
        self.decided: Callable[[Transaction], None] = lambda _: None
        self.refuses: dict[bytes, int] = {}
        self.slow_markers_s = 0.0
        self._waiting: list[Callable[[], None]] = []
        self._readers: list[Callable[[], None]] = []

    # -- producing

    def produce(
        self, transactional_id: str, pid: int, epoch: int, tp: TP, sequence: int, records: Sequence[Content]
    ) -> tuple[int, int]:
        """A batch: error code, offset of its first record."""
        identity = self.ids[transactional_id]
        error = self._check(identity, pid, epoch)
        if error != OK:
            return KafkaError.INVALID_PRODUCER_EPOCH, -1
        transaction = identity.transaction
        if identity.state != ONGOING or tp not in identity.partitions or transaction is None:
            return KafkaError.INVALID_TXN_STATE, -1
        for record in records:
            name = (record.value or b"").partition(b"/")[0]
            if self.refuses.get(name):
                self.refuses[name] -= 1
                self.clock.note("broker", "refuses", name)
                return KafkaError.MSG_SIZE_TOO_LARGE, -1
        return self.logs[tp].append(pid, epoch, sequence, records, transaction, self.clock.now)

    def append_foreign(self, tp: TP, records: Sequence[Content], transaction: Transaction | None) -> None:
        """Records of a producer outside, in its transaction or in none."""
        self.logs[tp].append_foreign(records, transaction, self.clock.now)
        self._tell_readers()

    def end_foreign(self, transaction: Transaction, commit: bool) -> None:
        """The end of a transaction of a producer outside, its markers included."""
        transaction.decision = DECISION[commit]
        for tp in dict.fromkeys(tp for tp, _ in transaction.records):
            self.logs[tp].mark(transaction, transaction.epoch, self.clock.now)
        self._tell_readers()

    # -- transactions

    def init_producer_id(
        self, transactional_id: str, timeout_s: float, pid: int = -1, epoch: int = -1
    ) -> tuple[int, int, int]:
        """InitProducerId: error code, producer id, epoch; fences every older producer of the id."""
        identity = self.ids.get(transactional_id)
        if identity is None:
            identity = self.ids[transactional_id] = Identity(1000 + len(self.ids), timeout_s)
            return OK, identity.pid, identity.epoch
        if pid >= 0 and self._check(identity, pid, epoch) != OK:
            return KafkaError.PRODUCER_FENCED, -1, -1
        if identity.state == ONGOING:
            identity.epoch += 1
            self._prepare(transactional_id, identity, commit=False)
        if identity.state in PREPARE.values():
            return KafkaError.CONCURRENT_TRANSACTIONS, -1, -1
        identity.epoch += 1
        identity.state, identity.timeout_s, identity.ended_epoch = EMPTY, timeout_s, -1
        self.clock.note("broker", transactional_id, "epoch", identity.epoch)
        return OK, identity.pid, identity.epoch

    def add_partitions(self, transactional_id: str, pid: int, epoch: int, tps: Sequence[TP]) -> int:
        """AddPartitionsToTxn."""
        error, _ = self._begin(transactional_id, pid, epoch)
        if error == OK:
            self.ids[transactional_id].partitions.update(dict.fromkeys(tps))
        return error

    def add_offsets(self, transactional_id: str, pid: int, epoch: int) -> int:
        """AddOffsetsToTxn."""
        error, _ = self._begin(transactional_id, pid, epoch)
        if error == OK:
            self.ids[transactional_id].with_offsets = True
        return error

    def commit_offsets(
        self, transactional_id: str, pid: int, epoch: int, offsets: dict[TP, StoredOffset],
        member: tuple[str, int],
        really: int,
    ) -> int:  # fmt: skip
        """TxnOffsetCommit, with the member's id and generation; `really`: the one its worker believes in."""
        identity = self.ids[transactional_id]
        if self._check(identity, pid, epoch) != OK:
            return KafkaError.INVALID_PRODUCER_EPOCH
        if identity.state != ONGOING or not identity.with_offsets or identity.transaction is None:
            return KafkaError.INVALID_TXN_STATE
        identity.transaction.generation = really
        return self.group.add_offsets(identity.transaction, offsets, *member)

    def end(self, transactional_id: str, pid: int, epoch: int, commit: bool) -> tuple[int, int]:
        """EndTxn: error code, the epoch to go on with."""
        identity = self.ids[transactional_id]
        if self.epoch_per_transaction and (pid, epoch) == (identity.pid, identity.ended_epoch):
            # the same request again, as the answer was lost: it is for the transaction that has ended
            error = OK if identity.state == COMPLETE[commit] else KafkaError.CONCURRENT_TRANSACTIONS
            return error, identity.epoch
        error = self._check(identity, pid, epoch)
        if error != OK:
            return error, epoch
        if identity.state == ONGOING:
            if self.epoch_per_transaction:
                identity.ended_epoch, identity.epoch = identity.epoch, identity.epoch + 1
            self._prepare(transactional_id, identity, commit)
            return OK, identity.epoch
        if identity.state == PREPARE[commit]:
            return KafkaError.CONCURRENT_TRANSACTIONS, epoch
        return (OK if identity.state == COMPLETE[commit] else KafkaError.INVALID_TXN_STATE), epoch

    def _begin(self, transactional_id: str, pid: int, epoch: int) -> tuple[int, Transaction | None]:
        """The first partition of a transaction begins it."""
        identity = self.ids[transactional_id]
        error = self._check(identity, pid, epoch)
        if error != OK:
            return error, None
        if identity.state in PREPARE.values():
            return KafkaError.CONCURRENT_TRANSACTIONS, None
        if identity.state != ONGOING:
            identity.state = ONGOING
            identity.partitions, identity.with_offsets = {}, False
            identity.transaction = Transaction(transactional_id, pid, epoch)
            self._watch(transactional_id, identity, identity.transaction, identity.timeout_s)
        return OK, identity.transaction

    def _check(self, identity: Identity, pid: int, epoch: int) -> int:
        if pid != identity.pid:
            return KafkaError.INVALID_PRODUCER_ID_MAPPING
        return OK if epoch == identity.epoch else KafkaError.PRODUCER_FENCED

    def _watch(self, name: str, identity: Identity, transaction: Transaction, in_s: float) -> None:
        """Abort a transaction that nobody ends in time."""

        def look() -> None:
            if identity.transaction is not transaction or identity.state != ONGOING:
                return
            if not self.up:
                self._watch(name, identity, transaction, CLEAN_UP_S)
                return
            identity.epoch += 1
            self.clock.note("broker", name, "times out")
            self._prepare(name, identity, commit=False)

        self.clock.after(in_s + self.clock.rng.random() * CLEAN_UP_S, look)

    def _prepare(self, name: str, identity: Identity, commit: bool) -> None:
        """Decide; the markers follow one by one."""
        transaction = identity.transaction
        assert transaction is not None
        identity.state = PREPARE[commit]
        transaction.decision = DECISION[commit]
        count, offsets = len(transaction.records), {tp: at.offset for tp, at in transaction.offsets.items()}
        self.clock.note("broker", name, DECISION[commit], count, "records", offsets)
        self.decided(transaction)
        identity.markers = len(identity.partitions) + identity.with_offsets
        for tp in identity.partitions:
            self._marker(identity, partial(self._mark, tp, transaction, identity.epoch))
        if identity.with_offsets:
            # the group's cache learns of its marker a little after the marker counts as written
            learn = partial(self.clock.after, CACHE_S, partial(self.group.mark, transaction))
            self._marker(identity, learn)
        if not identity.markers:
            identity.state = COMPLETE[commit]

    def _mark(self, tp: TP, transaction: Transaction, epoch: int) -> None:
        self.logs[tp].mark(transaction, epoch, self.clock.now)

    def _marker(self, identity: Identity, write: Callable[[], object]) -> None:
        def arrives() -> None:
            if not self.up:
                self._waiting.append(arrives)
                return
            write()
            identity.markers -= 1
            if not identity.markers:
                identity.state = COMPLETE[identity.state == PREPARE[True]]
            self._tell_readers()

        low, high = MARKER_S
        self.clock.after(low + self.clock.rng.random() * max(high, self.slow_markers_s), arrives)

    # -- reading

    def offsets(self, tps: Sequence[TP]) -> dict[TP, StoredOffset] | None:
        """OffsetFetch with require_stable; None while one of them is unstable."""
        return None if any(self.group.is_pending(tp) for tp in tps) else self.possibly_old_offsets(tps)

    def possibly_old_offsets(self, tps: Sequence[TP]) -> dict[TP, StoredOffset]:
        """OffsetFetch as older clients ask it: what is pending does not count."""
        return {tp: self.group.committed.get(tp, NO_OFFSET) for tp in tps}

    def on_news(self, reader: Callable[[], None]) -> None:
        """Call a reader once, when something is appended."""
        self._readers.append(reader)

    def _tell_readers(self) -> None:
        readers, self._readers = self._readers, []
        for reader in readers:
            reader()

    # -- the broker's own life

    def stop(self) -> None:
        """The broker is gone; what it has written stays."""
        self.up = False

    def start(self) -> None:
        """It is back."""
        self.up = True
        self.group.restarted()
        waiting, self._waiting = self._waiting, []
        for marker in waiting:
            self.clock.after(self.clock.rng.random() * 0.2, marker)

    def nothing_open(self) -> bool:
        """True if no transaction is under way anywhere, no marker is missing."""
        open_ids = [i for i in self.ids.values() if i.state == ONGOING or i.state in PREPARE.values()]
        return not open_ids and not self.group.pending and not any(log.open for log in self.logs.values())
