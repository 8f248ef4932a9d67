"""Sharing tasks out.

Operations: any numbers of partitions, members, claims (also stale, doubled, out of range); a member joins or
leaves a group that was shared out.

Properties of `share_out`:

1. every partition has one owner
2. shares differ by at most one
3. nothing moves while the membership stays
4. when a member joins, only what it gets moves; when one leaves, only what it had
5. as many partitions as any even sharing could leave stay with disjoint claimants
"""

import orjson
import pytest
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment, ConsumerProtocolMemberMetadata
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

from faust_exactly_once.assignor import TaskAssignor, share_out

MEMBERS = st.sets(st.sampled_from("abcdefgh"), min_size=1)
Shares = dict[str, list[int]]
Assignments = dict[str, ConsumerProtocolMemberAssignment]


def moved(before: Shares, after: Shares) -> int:
    """How many partitions have another owner than before."""
    owner = {p: member for member, numbers in before.items() for p in numbers}
    return sum(owner.get(p) != member for member, numbers in after.items() for p in numbers)


@given(
    st.integers(0, 40),
    st.dictionaries(st.sampled_from("abcdefgh"), st.lists(st.integers(0, 60), max_size=40), min_size=1),
)
def test_every_partition_has_one_owner_in_even_shares(partitions: int, owned: Shares) -> None:
    """Whatever members claim, the result is complete, disjoint, even (properties 1, 2)."""
    shares = share_out(partitions, owned)
    assert sorted(owned) == sorted(shares)
    assert list(range(partitions)) == sorted(p for numbers in shares.values() for p in numbers)
    sizes = [len(numbers) for numbers in shares.values()]
    assert max(sizes) - min(sizes) <= 1


@given(st.integers(0, 40), MEMBERS)
def test_nothing_moves_while_the_membership_stays(partitions: int, members: set[str]) -> None:
    """A rebalance without a change costs nothing (property 3)."""
    shares = share_out(partitions, {member: [] for member in members})
    assert shares == share_out(partitions, shares)


@given(st.integers(0, 40), MEMBERS)
def test_a_join_moves_what_the_new_member_gets(partitions: int, members: set[str]) -> None:
    """Two old members never exchange tasks (property 4)."""
    shares = share_out(partitions, {member: [] for member in members})
    after = share_out(partitions, {**shares, "new": []})
    assert len(after["new"]) == moved(shares, after)


@given(st.integers(0, 40), MEMBERS.filter(lambda members: len(members) > 1))
def test_a_leave_moves_what_the_old_member_had(partitions: int, members: set[str]) -> None:
    """Who stays keeps everything (property 4)."""
    shares = share_out(partitions, {member: [] for member in members})
    gone = min(members)
    after = share_out(partitions, {member: numbers for member, numbers in shares.items() if member != gone})
    assert len(shares[gone]) == moved(shares, after)


@given(st.lists(st.sampled_from("abcde"), max_size=30), st.sampled_from(["abcde", "abc"]))
def test_as_much_stays_as_any_even_sharing_allows(owners: list[str], members: str) -> None:
    """No sharing with even sizes would move less (property 5)."""
    owned = {member: [p for p, owner in enumerate(owners) if owner == member] for member in members}
    low, extra = divmod(len(owners), len(members))
    by_size = sorted((len(numbers) for numbers in owned.values()), reverse=True)
    stay = sum(min(size, low + (rank < extra)) for rank, size in enumerate(by_size))
    assert len(owners) - stay == moved(owned, share_out(len(owners), owned))


def test_what_two_members_claim_goes_to_the_first_of_them() -> None:
    """A member that missed a rebalance may claim what has moved meanwhile."""
    assert {"a": [0, 3], "b": [1, 2]} == share_out(4, {"b": [0, 1, 2], "a": [0, 3]})


class Cluster:
    """Topic metadata as aiokafka has it."""

    def __init__(self, **partitions: int) -> None:
        self._partitions = partitions

    def partitions_for_topic(self, topic: str) -> set[int] | None:
        """The partition numbers, or None if the topic is unknown."""
        return set(range(self._partitions[topic])) if topic in self._partitions else None


def member(
    *topics: str, url: str = "http://w:1", owned: tuple[int, ...] = ()
) -> ConsumerProtocolMemberMetadata:
    return ConsumerProtocolMemberMetadata(0, list(topics), orjson.dumps({"url": url, "owned": owned}))


def assigned(cluster: Cluster, **members: ConsumerProtocolMemberMetadata) -> Assignments:
    answer: Assignments = TaskAssignor(None).assign(cluster, members)
    return answer


def numbers_by_topic(assignment: ConsumerProtocolMemberAssignment) -> dict[str, list[int]]:
    return {topic: sorted(numbers) for topic, numbers in assignment.assignment}


def test_a_topic_that_not_every_member_reads_stays_unassigned() -> None:
    """In a rolling deploy that adds a topic no task is split over two workers."""
    answer = assigned(Cluster(old=4, new=4), a=member("old", "new"), b=member("old"))
    assert [["old"], ["old"]] == [list(numbers_by_topic(answer[m])) for m in "ab"]


def test_a_topic_that_does_not_exist_stays_unassigned() -> None:
    """The others are assigned meanwhile."""
    answer = assigned(Cluster(old=2), a=member("old", "new"))
    assert {"old": [0, 1]} == numbers_by_topic(answer["a"])


def test_all_topics_of_a_partition_go_to_one_member() -> None:
    """A task is never split."""
    answer = assigned(Cluster(x=5, y=5), a=member("x", "y"), b=member("x", "y"), c=member("x", "y"))
    for assignment in answer.values():
        found = numbers_by_topic(assignment)
        assert found["x"] == found["y"]
    assert [0, 1, 2, 3, 4] == sorted(p for m in "abc" for p in numbers_by_topic(answer[m])["x"])


def test_only_partitions_that_every_topic_has_are_assigned() -> None:
    """While one topic has grown, its further partitions wait for the other."""
    answer = assigned(Cluster(x=2, y=3), a=member("x", "y"))
    assert {"x": [0, 1], "y": [0, 1]} == numbers_by_topic(answer["a"])


def test_a_member_keeps_what_it_says_it_owns() -> None:
    """The metadata of each member carries its tasks to the leader."""
    answer = assigned(Cluster(x=4), a=member("x", owned=(1, 3)), b=member("x", owned=(0, 2)))
    assert {"x": [1, 3]} == numbers_by_topic(answer["a"])


def test_each_member_learns_the_address_of_every_owner() -> None:
    """A worker knows where to send a web request for any key."""
    members = {"a": member("x", url="http://a:1"), "b": member("x", url="http://b:2")}
    answer = assigned(Cluster(x=2), **members)
    mine = TaskAssignor(None)
    encoded = ConsumerProtocolMemberAssignment.decode(answer["b"].encode())
    mine.on_assignment(encoded)
    assert [URL("http://a:1"), URL("http://b:2"), None] == [mine.url_of(p) for p in (0, 1, 2)]
    assert {"http://a:1": {"t": [0]}, "http://b:2": {"t": [1]}} == mine.table_metadata("t")


def test_each_member_learns_which_releases_there_are(caplog: pytest.LogCaptureFixture) -> None:
    """It says so while they differ, and once more when the last old one is gone."""
    new = ConsumerProtocolMemberMetadata(0, ["x"], orjson.dumps({"url": "http://w:1", "release": "0.3.0"}))
    mine = TaskAssignor(None)
    with caplog.at_level("INFO"):
        for members in ({"a": member("x")}, {"a": member("x"), "b": new, "c": new}, {"b": new, "c": new}):
            answer = assigned(Cluster(x=3), **members)
            for _ in range(2):
                mine.on_assignment(answer[sorted(members)[-1]])
    assert [
        "releases in the group: 0.3.0 (2 workers), older (1 worker)",
        "releases in the group: 0.3.0 (2 workers)",
    ] == caplog.messages


def test_an_assignment_of_an_older_leader_has_no_releases(caplog: pytest.LogCaptureFixture) -> None:
    """What a release before these words says is enough."""
    mine = TaskAssignor(None)
    with caplog.at_level("INFO"):
        mine.on_assignment(
            ConsumerProtocolMemberAssignment(0, [("x", [1])], orjson.dumps({"urls": {"1": "http://a:1"}}))
        )
    assert ([], URL("http://a:1")) == (caplog.messages, mine.url_of(1))
