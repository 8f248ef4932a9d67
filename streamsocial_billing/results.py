"""Prints charge results as JSON lines."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from typing import TextIO

from confluent_kafka import Message

from streamsocial_billing.committed import CommittedLog
from streamsocial_billing.settings import RESULTS, Settings


def follow_results(settings: Settings, *, follow: bool, out: TextIO) -> int:
    """Print every committed result, oldest first within a partition; returns how many.

    `follow`: go on for ever, until a KeyboardInterrupt or until nobody reads `out`. Raises KafkaProblem.
    """
    log = CommittedLog(settings)
    topic = settings.topic(RESULTS)
    printed = 0
    try:
        for message in log.follow(topic) if follow else _until_now(log, topic):
            if message is None:
                out.flush()
            elif message.value() is not None:
                out.write((message.value() or b"").decode(errors="replace") + "\n")
                printed += 1
        out.flush()
    except BrokenPipeError:  # `results | head`: an ordinary end
        if out is sys.stdout:  # else Python reports the same pipe again when it flushes at exit
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return printed


def _until_now(log: CommittedLog, topic: str) -> Iterator[Message]:
    places = [(topic, partition) for partition in range(log.partitions([topic])[topic])]
    return log.read(log.ends(places))
