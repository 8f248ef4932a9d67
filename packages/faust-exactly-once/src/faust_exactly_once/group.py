"""What the layer asks of the group's member, the consumer of this worker."""

from collections.abc import Mapping
from typing import Protocol

from .brokers import BrokerState
from .facts import TP
from .membership import Membership


class GroupMember(Protocol):
    """What the layer asks of the consumer that is the group's member."""

    async def continue_at(self, offsets: Mapping[TP, int], membership: Membership, epoch: int) -> None:
        """Seek, then let the partitions be fetched for the task epoch with this number."""

    async def is_member(self, membership: Membership) -> bool:
        """True if a heartbeat just confirmed this generation."""

    def has_contact(self) -> bool:
        """False while the group's coordinator is away."""

    def silent_s(self) -> float:
        """Seconds for which every broker has owed the answer to a fetch; 0 if none does."""

    def coordinator(self) -> int | None:
        """The broker that coordinates the group, None while it is not known."""

    def brokers(self) -> Mapping[int, BrokerState]:
        """What is known of each broker of the cluster, by id; empty before the first assignment."""
