"""Our own Kafka: one broker, or three with a controller; each process of it is a part that can be kept."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from confluent_kafka import KafkaException

from broker import LocalBroker
from broker.clients import fresh_client
from broker.cluster import LocalCluster, Node
from broker.leaders import partitions
from showcase.causes import how_it_ended
from streamsocial_billing.domain.english import counted
from torture.markers import BETWEEN_LOOKS_S, Repair
from torture.replicas import ClusterReplicas, Home

ANSWER_WITHIN_S: Final = 1.0
START_WITHIN_S: Final = 180.0
"""Four Java processes on a machine that does much else; a quiet one needs less than 15 s."""
MEND_FOR_S: Final = 60.0
"""How long after a restart the log is looked at; by then every transaction of before has timed out."""


class KafkaPart:
    """One process of it. `number` is its id as one of several brokers, else 0.

    `needs`: another one without which it cannot start.
    """

    def __init__(self, name: str, node: LocalBroker, needs: LocalBroker | None = None) -> None:
        self.name = name
        self.node = node
        self.number = node.number if isinstance(node, Node) else 0
        self.killed = False
        self._needs = needs

    @property
    def running(self) -> bool:
        """True while the Java process lives."""
        return self.node.running

    def kill(self) -> int:
        """SIGKILL on purpose; returns the pid it had."""
        pid = self.node.pid
        self.killed = True
        self.node.kill()
        return pid

    def start_again(self) -> None:
        """Start it over the same data; one of several is not waited for."""
        self.node.kill()  # lets go of what the dead process held
        if isinstance(self.node, Node):
            self.node.begin()
        else:
            self.node.start()
        self.killed = False

    def answers(self) -> bool:
        """True once it serves clients."""
        if isinstance(self.node, Node):
            return self.running and self.node.number in self.node.knows()
        return self.running  # it has answered before `start_again` returned

    def may_start(self) -> bool:
        """False while what it needs is not there."""
        return self._needs is None or self._needs.running

    def why(self) -> str:
        """How it ended."""
        return how_it_ended(self.name, self.node.exit_code, self.node.log_file, 0)


class OwnKafka:
    """One broker over `data`, or three with a controller. Raises BrokerError with a one-line text.

    Brokers that died may have forgotten ends of transactions (torture/markers.py): `mend`.
    """

    def __init__(self, data: Path, brokers: int, say: Callable[[str], None]) -> None:
        self._whole: LocalBroker | LocalCluster
        if brokers == 1:
            self._whole = single = LocalBroker(data)
            self.controller = None
            self.brokers = [KafkaPart("Kafka", single)]
        else:
            self._whole = cluster = LocalCluster(data, brokers)
            self.controller = KafkaPart("controller", cluster.controller)
            self.brokers = [
                KafkaPart(f"broker-{node.number}", node, cluster.controller) for node in cluster.brokers
            ]
        self._say = say
        self._repair: Repair | None = None
        self._mend_until = self._next_look = 0.0

    @property
    def parts(self) -> list[KafkaPart]:
        """Every process: the controller, if it is one of its own, then the brokers."""
        return [*([self.controller] if self.controller is not None else []), *self.brokers]

    @property
    def url(self) -> str:
        """Addresses of all brokers as settings have them."""
        return self._whole.url

    @property
    def bootstrap(self) -> str:
        """Addresses of all brokers, `host:port,...`."""
        return self._whole.bootstrap

    @property
    def is_there(self) -> bool:
        """True while enough brokers run for a committed transaction."""
        return sum(part.running for part in self.brokers) > len(self.brokers) // 2

    @property
    def whole(self) -> bool:
        """True while every process runs."""
        return all(part.running for part in self.parts)

    @property
    def state(self) -> str:
        """How many of several brokers run, for people; empty for a single one."""
        running = sum(part.running for part in self.brokers)
        return f"Kafka: {running} of {len(self.brokers)} brokers" if len(self.brokers) > 1 else ""

    def start(self) -> None:
        """Return once every broker answers; says where they are."""
        started = time.monotonic()
        self._whole.start(START_WITHIN_S)
        if isinstance(self._whole, LocalBroker):
            self._say(f"Kafka      {self.bootstrap} (pid {self._whole.pid})")
            return
        took = f"{time.monotonic() - started:.1f} s, {self._whole.memory_bytes() / 2**20:.0f} MiB of memory"
        self._say(f"Kafka      {len(self.brokers)} brokers and a controller, ready in {took}")
        self._say(f"controller (pid {self._whole.controller.pid})")
        for part in self.brokers:
            self._say(f"{part.name}   {part.node.bootstrap} (pid {part.node.pid})")

    def stop(self) -> None:
        """Stop what runs, in order."""
        self._whole.stop()

    def ended(self) -> KafkaPart | None:
        """A process that has ended although nobody killed it here."""
        return next((part for part in self.parts if not part.running and not part.killed), None)

    def mend(self) -> None:
        """Write what brokers have forgotten; without effect but after a death, and for a while then."""
        now = time.monotonic()
        if not all(part.running for part in self.brokers):
            self._mend_until = now + MEND_FOR_S
        if now < self._next_look:
            return
        self._next_look = now + BETWEEN_LOOKS_S
        if now > self._mend_until:
            self._repair = None
        elif self.is_there:
            self._repair = self._repair or self._new_repair()
            self._write_what_is_missing(self._repair)

    def _new_repair(self) -> Repair:
        homes = {part.number: Home(part.node.data_dir / "log", part.node.port) for part in self.brokers}
        if isinstance(self._whole, LocalBroker):
            return Repair(*homes[self.brokers[0].number])
        return Repair.of(ClusterReplicas(homes))

    def _write_what_is_missing(self, repair: Repair) -> None:
        try:
            written = len(repair.run_once())
        except OSError:
            return  # a broker is on its way down, or up: at the next look
        if written:
            ends = counted(written, "end of a transaction", "ends of transactions")
            self._say(f"Kafka had forgotten the {ends}: written (docs/torture.md)")

    def leaders(self, topic: str) -> list[int]:
        """For each partition the number of the broker that leads it, -1 for none; empty while nobody says."""
        return list(partitions(self.bootstrap, topic, ANSWER_WITHIN_S).values())

    def in_sync(self) -> int:
        """How many brokers are known and hold every record of which they keep a copy."""
        client = fresh_client(self.bootstrap)  # one that knows the cluster would ask the dead broker, too
        try:
            metadata = client.list_topics(timeout=ANSWER_WITHIN_S)
        except KafkaException:
            return 0
        every = [each for topic in metadata.topics.values() for each in topic.partitions.values()]
        behind = {replica for each in every for replica in set(each.replicas) - set(each.isrs)}
        return len(metadata.brokers.keys() - behind)
