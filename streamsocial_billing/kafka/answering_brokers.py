"""Which brokers of the list answer: what an operator has to know when a command could not be carried out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from streamsocial_billing.settings import Settings

ANSWERS_WITHIN_S: Final = 1.5
"""How long a broker of which we ask only whether it is there may take."""


def answering(settings: Settings, within_s: float = ANSWERS_WITHIN_S) -> dict[str, bool]:
    """For each address of the list whether a broker answers there, all asked at once.

    A connection alone proves nothing: the kernel accepts it for a process that hangs.
    """
    config, addresses = settings.client_config(), settings.bootstrap.split(",")
    with ThreadPoolExecutor(len(addresses), thread_name_prefix="who-answers") as threads:
        answers = threads.map(lambda address: _answers(config, address, within_s), addresses)
        return dict(zip(addresses, answers, strict=True))


def _answers(config: Mapping[str, Any], address: str, within_s: float) -> bool:
    try:
        # a client of this address alone: any other one would ask whichever broker it likes
        client = AdminClient({**config, "bootstrap.servers": address, "log_level": 0})
        client.list_topics(timeout=within_s)
    except KafkaException:
        return False
    return True


def advice(answers: Mapping[str, bool], why: str) -> str:
    """The one line for what Kafka did not do, by who answers; `why` is what librdkafka says."""
    silent = [address for address, there in answers.items() if not there]
    listed, number, there = ",".join(answers), len(answers), len(answers) - len(silent)
    if not there:
        none, start = (
            ("", "start it (make kafka)") if number == 1
            else (f"; none of {number} brokers does", "start them (BROKERS=3 make kafka)")
        )  # fmt: skip
        return f"Kafka at {listed} does not answer ({why}{none}): {start} or set BILLING_BROKER"
    if not silent:
        every = "the broker answers" if number == 1 else f"all {number} brokers answer"
        return f"Kafka at {listed} cannot do it now ({why}), though {every}: try again, then look at its log"
    verb, other, them = (
        "answers" if there == 1 else "answer",
        "does" if len(silent) == 1 else "do",
        "it" if len(silent) == 1 else "them",
    )
    return (
        f"Kafka cannot do it now ({why}): {there} of {number} brokers {verb}, {_and(silent)} {other} not: "
        f"start {them}"
    )


def _and(names: Sequence[str]) -> str:
    return " and ".join(names) if len(names) < 3 else f"{', '.join(names[:-1])} and {names[-1]}"
