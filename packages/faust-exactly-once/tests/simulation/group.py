"""The consumer group's coordinator: generations, members that expire, pending or committed offsets."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from confluent_kafka import KafkaError

from faust_exactly_once.assignor import share_out
from faust_exactly_once.facts import TP

from .clock import Clock, Timer
from .log import OK, StoredOffset, Transaction

JOIN_DELAY_S = 0.05  # after the first member: others may come
REBALANCE_S = 8.0  # who has not joined again by then is out


class Joined(NamedTuple):
    """The answer to a member that waited for a generation."""

    member_id: str
    generation: int
    partitions: list[int]


Reply = Callable[[Any], None]


@dataclass(slots=True)
class Member:
    """One member as the coordinator sees it; `replies` to each of its requests for the next generation."""

    session_s: float
    owned: list[int]
    replies: list[Reply] = field(default_factory=list)
    expiry: Timer | None = None


class Group:
    """One group of the classic protocol; join and sync are one request here."""

    def __init__(self, clock: Clock, partitions: int) -> None:
        self.generation = 0
        self.expelled = 0
        self.members: dict[str, Member] = {}
        self.preparing = False
        self.committed: dict[TP, StoredOffset] = {}
        self.pending: dict[Transaction, None] = {}
        self._clock = clock
        self._partitions = partitions
        self._made = 0
        self._deadline: Timer | None = None

    # -- members

    def join(self, member_id: str, owned: list[int], session_s: float, reply: Reply) -> None:
        """A member wants to be in the next generation; `reply` gets Joined, or an error code."""
        if not member_id:
            self._made += 1
            member_id = f"member-{self._made}"
            self.members[member_id] = Member(session_s, owned)
        member = self.members.get(member_id)
        if member is None:
            reply(KafkaError.UNKNOWN_MEMBER_ID)
            return
        member.owned = owned
        member.replies.append(reply)
        self._seen(member_id, member)
        self._prepare()
        self._complete_if_all_joined()

    def heartbeat(self, member_id: str, generation: int) -> int:
        """Stay a member; the answer says if it must join again."""
        error = self.check(member_id, generation)
        if error == OK:
            self._seen(member_id, self.members[member_id])
            return KafkaError.REBALANCE_IN_PROGRESS if self.preparing else OK
        return error

    def leave(self, member_id: str) -> int:
        """A member goes."""
        member = self.members.pop(member_id, None)
        if member is None:
            return KafkaError.UNKNOWN_MEMBER_ID
        if member.expiry is not None:
            member.expiry.cancel()
        if self.members:
            self._prepare()
            self._complete_if_all_joined()
        return OK

    def check(self, member_id: str, generation: int) -> int:
        """What the coordinator says of a request with this membership."""
        if member_id not in self.members:
            return KafkaError.UNKNOWN_MEMBER_ID
        return OK if generation == self.generation else KafkaError.ILLEGAL_GENERATION

    def restarted(self) -> None:
        """The broker is back: members are remembered, their sessions begin anew."""
        for member_id, member in self.members.items():
            member.replies.clear()
            self._seen(member_id, member)

    def _seen(self, member_id: str, member: Member) -> None:
        if member.expiry is not None:
            member.expiry.cancel()
        member.expiry = self._clock.after(member.session_s, lambda: self._expire(member_id))

    def _expire(self, member_id: str) -> None:
        member = self.members[member_id]
        if member.replies:
            self._seen(member_id, member)  # who waits for the next generation is alive
            return
        self._clock.note("group", member_id, "expires")
        self.expelled += 1
        self.leave(member_id)

    # -- generations

    def rebalance(self) -> None:
        """Begin a generation (a topic's metadata changed)."""
        if self.members:
            self._prepare()

    def _prepare(self) -> None:
        if self.preparing:
            return
        self.preparing = True
        first = self.generation == 0
        limit = JOIN_DELAY_S if first else REBALANCE_S
        self._deadline = self._clock.after(limit, self._complete)

    def _complete_if_all_joined(self) -> None:
        if self.generation and all(member.replies for member in self.members.values()):
            self._complete()

    def _complete(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        self.preparing, self._deadline = False, None
        for member_id in [m for m, member in self.members.items() if not member.replies]:
            self.expelled += 1
            expiry = self.members.pop(member_id).expiry
            if expiry is not None:
                expiry.cancel()
        if not self.members:
            return
        self.generation += 1
        shares = share_out(self._partitions, {m: member.owned for m, member in self.members.items()})
        self._clock.note("group", "generation", self.generation, shares)
        for member_id, member in list(self.members.items()):
            replies, member.replies, member.owned = member.replies, [], shares[member_id]
            for reply in replies:
                reply(Joined(member_id, self.generation, shares[member_id]))

    # -- offsets

    def add_offsets(
        self, transaction: Transaction, offsets: dict[TP, StoredOffset], member_id: str, generation: int
    ) -> int:
        """Offsets of a transaction, pending until its marker; outsiders (no member, -1) are not checked."""
        if (member_id, generation) != ("", -1):
            error = self.check(member_id, generation)
            if error != OK:
                return error
        transaction.offsets.update(offsets)
        self.pending[transaction] = None
        return OK

    def mark(self, transaction: Transaction) -> None:
        """The transaction's marker: what was pending is committed, or dropped."""
        self.pending.pop(transaction, None)
        if transaction.decision == "commit":
            self.committed |= transaction.offsets

    def is_pending(self, tp: TP) -> bool:
        """True if a transaction is about to move a committed offset."""
        return any(tp in transaction.offsets for transaction in self.pending)
