"""The topics of the app: names, settings, what is created, what is refused."""

import logging
from dataclasses import dataclass
from typing import Final

from confluent_kafka.admin import NewTopic

from faust_exactly_once import AS_BROKERS, Cluster, SetupRefused, TopicFacts
from streamsocial_billing.domain.decision import DEDUP_RETENTION_MS
from streamsocial_billing.settings import (
    ANSWERS,
    AUTHENTICATIONS,
    BREAKS,
    COMMANDS,
    DEAD_LETTERS,
    GATEWAY_EVENTS,
    METRICS,
    PAYMENTS,
    REPLAYS,
    RESULTS,
    RETRY,
    Settings,
)

logger = logging.getLogger(__name__)

DAY_MS: Final = 86_400_000
INPUT_RETENTION_MS: Final = 30 * DAY_MS
DEAD_LETTER_RETENTION_MS: Final = 90 * DAY_MS
RECORD_BYTES: Final = 1_048_588  # Kafka's default of max.message.bytes
FOR_EVER: Final = "-1"
REPLICATION_ADVICE: Final = "start the missing brokers, or set BILLING_REPLICATION"


@dataclass(frozen=True, slots=True)
class Plan:
    """A topic as the app creates it; `same_partitions`: it shares tasks, so its count must be the tasks'."""

    name: str
    config: dict[str, str]
    same_partitions: bool = False


PLANS: Final = (
    Plan(PAYMENTS, {
        "retention.ms": str(INPUT_RETENTION_MS),
        # the append time is what the age guard of a gateway key counts from: a caller's clock is no proof
        "message.timestamp.type": "LogAppendTime",
        "max.message.bytes": str(RECORD_BYTES),
    }, same_partitions=True),
    Plan(RETRY, {"retention.ms": str(INPUT_RETENTION_MS)}, same_partitions=True),
    Plan(GATEWAY_EVENTS, {"retention.ms": str(INPUT_RETENTION_MS)}, same_partitions=True),
    # what people did stays on record for ever (payments.md, "Settled by hand")
    Plan(COMMANDS, {"retention.ms": FOR_EVER}, same_partitions=True),
    Plan(ANSWERS, {"retention.ms": FOR_EVER}),
    Plan(RESULTS, {"retention.ms": FOR_EVER}),
    Plan(METRICS, {"retention.ms": FOR_EVER}),
    # what others sent, so not for ever; longer than its event is there, so that the audit finds it (0077)
    Plan(DEAD_LETTERS, {
        "retention.ms": str(DEAD_LETTER_RETENTION_MS), "max.message.bytes": str(2 * RECORD_BYTES),
    }),
    # one marker for each letter that went back: without it a letter could go back twice
    Plan(REPLAYS, {"cleanup.policy": "compact"}),
    # whom the platform has to bring back; how it ended is among the results
    Plan(AUTHENTICATIONS, {"retention.ms": str(INPUT_RETENTION_MS)}),
    # the open breaks of the last run, key = a break's id
    Plan(BREAKS, {"cleanup.policy": "compact"}),
)  # fmt: skip


def create_topics(settings: Settings, cluster: Cluster) -> None:
    """Create what is missing, then refuse what does not fit.

    Raises:
        SetupRefused: names the topic, what it has, what it should have.
        KafkaUnavailable: no answer that is a fact; what was created is left as it is at the next try.
    """
    names = {plan.name: settings.topic(plan.name) for plan in PLANS}
    there = cluster.topics(names.values())
    if names[PAYMENTS] in there:  # before a topic is made with a count that fits no other
        _check_partitions(settings, there[names[PAYMENTS]].partitions)
    replicas = settings.replication or AS_BROKERS
    missing = [
        NewTopic(names[plan.name], settings.partitions, replicas, config=plan.config)
        for plan in PLANS if names[plan.name] not in there
    ]  # fmt: skip
    cluster.create(missing, lambda text: logger.warning("%s", text), REPLICATION_ADVICE)
    facts = cluster.facts_of(names.values())
    check_topics(settings, {plan.name: facts[names[plan.name]] for plan in PLANS})


def _check_partitions(settings: Settings, tasks: int) -> None:
    if settings.partitions != tasks:
        raise SetupRefused(
            f"BILLING_PARTITIONS is {settings.partitions}, but topic {settings.topic(PAYMENTS)} has {tasks} "
            f"partitions: set BILLING_PARTITIONS={tasks}. The count cannot change later: users would be sent "
            "to tasks that do not have their tables"
        )


def check_topics(settings: Settings, facts: dict[str, TopicFacts]) -> None:
    """Refuse partition counts that differ, or retentions under which a payment could be charged again."""
    tasks = facts[PAYMENTS].partitions
    _check_partitions(settings, tasks)
    for plan in PLANS:
        fact, name = facts[plan.name], settings.topic(plan.name)
        if plan.same_partitions and fact.partitions != tasks:
            raise SetupRefused(
                f"topic {name} has {fact.partitions} partitions, {settings.topic(PAYMENTS)} has {tasks}: "
                "they share tasks, so the counts must agree"
            )
    for name in (PAYMENTS, RETRY, GATEWAY_EVENTS):
        kept = int(facts[name].config.get("retention.ms", FOR_EVER))
        if not 0 <= kept <= DEDUP_RETENTION_MS:
            raise SetupRefused(
                f"topic {settings.topic(name)} keeps records {kept} ms; payments are remembered for "
                f"{DEDUP_RETENTION_MS} ms, an older event could be charged again: lower its retention.ms"
            )
    if facts[PAYMENTS].config.get("message.timestamp.type") != "LogAppendTime":
        raise SetupRefused(f"topic {settings.topic(PAYMENTS)} needs message.timestamp.type=LogAppendTime")
    for name, why in ((RESULTS, "the books are kept"), (COMMANDS, "what people did is kept"),
                      (ANSWERS, "what people did is kept")):  # fmt: skip
        if facts[name].config.get("retention.ms") != FOR_EVER:
            raise SetupRefused(f"topic {settings.topic(name)} needs retention.ms=-1: {why}")
