"""The kinds of faults that a cluster must bear; each runs as one case of support.under_fault."""

from __future__ import annotations

import time
from dataclasses import replace

from confluent_kafka import Consumer, KafkaError, TopicPartition
from confluent_kafka.admin import NewTopic
from support.halts import COMMIT_POINTS
from support.records import refusal
from support.under_fault import SMALL_DISK_OF, START_WITHIN_S, BehindProxies, InCombinedMode, UnderFault
from support.until import until

from broker.clients import fresh_client
from broker.leaders import partitions
from streamsocial_billing.kafka.committed import consumer_config
from streamsocial_billing.settings import PAYMENTS, RESULTS, Settings

GOES_ON = "results in every partition while it is down; nothing lost or charged twice"
NOTHING_LOST = "nothing lost or charged twice; all answered afterwards"


def killed_at(under: UnderFault, point: str, victim: str) -> None:
    """SIGKILL for the broker that leads `victim` for a task, while the task halts at the point."""
    worker = under.fleet.workers[1]
    with under.fault(f"leader of the {victim} killed at `{point}`", GOES_ON):
        if point in COMMIT_POINTS:
            with under.halts.asked(point):
                _kill_the_leader(under, point, victim)
        else:
            # the other worker opens what this one leaves; then it opens its own again, with one broker down
            with under.fleet.ended_on_purpose(worker), under.halts.asked(point):
                assert 0 == worker.stop(), worker.tail()
                _kill_the_leader(under, point, victim)
        under.wait_moving()


def rolling(under: UnderFault, *, kill: bool) -> None:
    """Each broker ends and starts again, the next one when all replicas are in sync."""
    how = "SIGKILL" if kill else "clean stop"
    with under.fault(f"rolling restart by {how}", GOES_ON):
        for node in under.cluster.brokers:
            node.kill() if kill else node.stop(60)
            under.wait_moving()
            node.start(START_WITHIN_S)
            under.fleet.wait_in_sync(START_WITHIN_S)


def frozen(under: UnderFault, seconds: float) -> None:
    """SIGSTOP for a broker that leads something, longer than its session; its partitions move."""
    with under.fault(f"one broker frozen for {seconds:.0f} s (its session: 3 s)", GOES_ON):
        node = under.victim("group coordinator", 0)
        node.pause()
        time.sleep(seconds)
        under.wait_moving()
        node.resume()


def cut_from_clients(under: BehindProxies, seconds: float, *, silent: bool = False) -> None:
    """Its partitions do not move, as its peers see it: what it leads waits until it can be reached."""
    how = "in silence" if silent else "by resets"
    with under.fault(f"one broker cut off from clients for {seconds:.0f} s, {how}", NOTHING_LOST):
        under.network.cut_from_clients(under.victim("source", 0).number, silent=silent)
        time.sleep(seconds)


def cut_from_peers(
    under: BehindProxies, seconds: float, *, silent: bool = False, openings: bool = False
) -> None:
    """Its partitions move, and it does not know: who asks it hears the past.

    `openings`: meanwhile a worker is restarted, so that every task is opened.
    """
    how = ("in silence" if silent else "by resets") + (", a worker restarted meanwhile" if openings else "")
    worker = under.fleet.workers[1]
    with under.fault(f"one broker cut off from its peers for {seconds:.0f} s, {how}", NOTHING_LOST):
        under.network.cut_from_peers(under.victim("source", 0).number, silent=silent)
        healed_at = time.monotonic() + seconds
        if openings:
            with under.fleet.ended_on_purpose(worker):
                worker.kill()
        time.sleep(max(0.0, healed_at - time.monotonic()))


def disk_full(under: BehindProxies) -> None:
    """A broker ends when it cannot write; it starts again once there is room."""
    node = under.cluster.brokers[SMALL_DISK_OF - 1]
    with under.fault(f"disk of one broker full ({under.disk.kind})", GOES_ON):
        under.disk.fill(node)
        until(lambda: not node.running, "the broker ends", 180)
        under.wait_moving()


def min_insync_lost(under: UnderFault, seconds: float) -> None:
    """One broker of three is left: it takes no record, it shows what is committed, nothing becomes stable."""
    fleet = under.fleet
    # of its own: what is written before the others are missed is not refused, and is there afterwards
    topic = f"{fleet.name}-refusal-{time.monotonic_ns()}"
    case = f"`min.insync.replicas` lost for {seconds:.0f} s"
    with under.fault(case, "produce refused, committed records readable, last stable offset stands still; "
                     + NOTHING_LOST):  # fmt: skip
        admin = fresh_client(under.cluster.bootstrap)
        admin.create_topics([NewTopic(topic, 1)])[topic].result(90)
        survivor, known = under.victim("source", 0), len(fleet.results.records)
        under.wait_moving()
        for node in under.cluster.brokers:
            if node is not survivor:
                node.kill()
        since = time.monotonic()
        until(lambda: {survivor.number} == set(partitions(survivor.bootstrap, topic).values()),
              "the one that is left leads")  # fmt: skip
        until(lambda: refusal(survivor.bootstrap, topic) == KafkaError.NOT_ENOUGH_REPLICAS,
              "it refuses to write")  # fmt: skip
        alone = replace(fleet.settings, broker=survivor.url)
        before, count = read_to_the_end(alone)
        # it was a follower of others, which learns a moment later than readers how far a log is committed
        assert known <= count
        time.sleep(max(0.0, since + seconds - time.monotonic()))
        assert (before, count) == read_to_the_end(alone)


def controller_lost(under: BehindProxies, seconds: float) -> None:
    """Without a controller leaders stay as they are, and so does everything else."""
    with under.fault(f"the controller down for {seconds:.0f} s", "results go on without it; " + NOTHING_LOST):
        under.controller.kill()
        until_s = time.monotonic() + seconds
        while time.monotonic() < until_s:
            under.wait_moving()
            time.sleep(0.2)


def quorum_lost(under: InCombinedMode, seconds: float) -> None:
    """Two of three nodes that are broker and controller are down: nobody can choose leaders either."""
    case = f"combined mode: the quorum lost for {seconds:.0f} s (two of three nodes down)"
    with under.fault(case, NOTHING_LOST):
        for node in under.cluster.brokers[:2]:
            node.kill()
        time.sleep(seconds)


def read_to_the_end(settings: Settings) -> tuple[dict[tuple[str, int], int], int]:
    """Where committed records end in each partition of results and payments; how many results there are.

    Asked by reading: a leader that cannot let its high watermark rise does not say where a log ends.
    """
    topics = [settings.topic(name) for name in (RESULTS, PAYMENTS)]
    places = [TopicPartition(name, number, 0) for name in topics for number in range(settings.partitions)]
    ends: dict[tuple[str, int], int] = {}
    results = 0
    consumer = Consumer(consumer_config(settings) | {"log_level": 0})
    try:
        consumer.assign(places)
        limit = time.monotonic() + 120
        while len(ends) < len(places) and time.monotonic() < limit:
            message = consumer.poll(0.2)
            error = message.error() if message is not None else None
            if message is not None and error is None:
                results += message.topic() == topics[0]
            elif message is not None and error and error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001
                ends[message.topic() or "", message.partition() or 0] = message.offset() or 0
        assert len(places) == len(ends), f"only {sorted(ends)} could be read to their ends"
        return ends, results
    finally:
        consumer.close()


def _kill_the_leader(under: UnderFault, point: str, victim: str) -> None:
    halted = under.halts.wait(point)
    under.victim(victim, halted.partition).kill()
