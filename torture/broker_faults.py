"""Faults of three brokers: one of them, two, all, or their controller. One at a time.

Nothing acknowledged is lost by any of them: a record is acknowledged by two brokers at least, and what a
killed process had written is in the kernel's pages, also if all three are killed at once.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from broker import LocalBroker
from broker.leaders import group_coordinator, leader
from streamsocial_billing.settings import PAYMENTS, RESULTS
from torture.process_faults import Detail
from torture.schedule import Planned
from torture.segments import TRANSACTIONS
from torture.system import APP_ID, PARTITIONS, System
from torture.three import ThreeBrokers

TRANSACTION_PARTITIONS = 8
"""transaction.state.log.num.partitions in broker/server.properties."""
ENDS_WITHIN_S = 15.0
"""How long a broker whose disk is full may find nothing to write before it is ended."""


class Away:
    """Who was away from when to when in one fault: what its line in faults.jsonl says beside the rest."""

    def __init__(self, kafka: ThreeBrokers, detail: Detail) -> None:
        self.kafka = kafka
        self.detail = detail
        self.spans: list[list[Any]] = detail.setdefault("away", [])

    def leaves(self, who: str) -> None:
        """From now on; `who`: "broker 2", "controller"."""
        self.spans.append([who, time.time(), None])

    def end(self, number: int, how: str) -> None:
        """Stop a broker in order, kill it or freeze it."""
        self.leaves(f"broker {number}")
        end(self.kafka.node(number), how)

    def back(self) -> None:
        """Everybody is back; and wait until all replicas are in sync again."""
        began = time.monotonic()
        self.kafka.heal_brokers()
        self.detail["start_s"] = round(time.monotonic() - began, 2)
        for span in self.spans:
            span[2] = span[2] or time.time()
        self.detail["whole_s"] = self.kafka.wait_whole()


@contextmanager
def brokers_of(system: System, detail: Detail) -> Iterator[Away]:
    """The brokers, for this fault alone, and until all replicas are in sync again."""
    with system.locks["broker"]:
        kafka = system.kafka
        assert isinstance(kafka, ThreeBrokers)  # noqa: S101 - for mypy: these kinds come with three only
        away = Away(kafka, detail)
        try:
            yield away
        finally:
            away.back()


def broker_kill(system: System, fault: Planned) -> Detail:
    """SIGKILL of one broker, then a start from the same data."""
    return _one_ends(system, fault, "kill")


def broker_stop(system: System, fault: Planned) -> Detail:
    """One broker stops in order, handing over what it leads, then starts."""
    return _one_ends(system, fault, "stop")


def broker_freeze(system: System, fault: Planned) -> Detail:
    """SIGSTOP of one broker for longer than its session: it wakes up as a leader of before."""
    return _one_ends(system, fault, "freeze")


def _one_ends(system: System, fault: Planned, how: str) -> Detail:
    detail: Detail = {}
    with brokers_of(system, detail) as away:
        away.end(chosen(system, fault, detail), how)
        time.sleep(fault.length_s)
    return detail


def broker_disk_full(system: System, fault: Planned) -> Detail:
    """No file of one broker may grow (RLIMIT_FSIZE: EFBIG, which Kafka takes as it takes ENOSPC).

    It ends at its next write, then starts where there is room again.
    """
    detail: Detail = {}
    with brokers_of(system, detail) as away:
        number = chosen(system, fault, detail)
        node = away.kafka.node(number)
        away.leaves(f"broker {number}")
        _, hard = resource.prlimit(node.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(node.pid, resource.RLIMIT_FSIZE, (1, hard))
        until = time.monotonic() + ENDS_WITHIN_S
        while node.running and time.monotonic() < until:
            time.sleep(0.1)
        detail["ended_itself"] = not node.running
        node.kill()
        time.sleep(fault.length_s)
    return detail


def brokers_rolled(system: System, fault: Planned) -> Detail:
    """Each broker in turn stops, or is killed, and starts; the next one once all replicas are in sync."""
    detail: Detail = {"how": fault.args["how"], "each_whole_s": []}
    with brokers_of(system, detail) as away:
        for number in fault.args["order"]:
            away.end(number, fault.args["how"])
            time.sleep(fault.length_s / len(fault.args["order"]))
            away.back()
            detail["each_whole_s"].append(detail["whole_s"])
    return detail


def broker_without_clients(system: System, fault: Planned) -> Detail:
    """No client reaches one broker, its peers and the controller do: it stays the leader of what it leads."""
    detail: Detail = {"how": fault.args["how"]}
    with brokers_of(system, detail) as away:
        number = chosen(system, fault, detail)
        away.leaves(f"broker {number}")
        away.kafka.cut_from_clients(number, silent=fault.args["how"] == "silent")
        time.sleep(fault.length_s)
    return detail


def broker_without_peers(system: System, fault: Planned) -> Detail:
    """Clients reach one broker, its peers do not, in both directions; perhaps the controller neither."""
    detail: Detail = {"how": fault.args["how"], "controller_too": fault.args["controller_too"]}
    with brokers_of(system, detail) as away:
        number = chosen(system, fault, detail)
        away.leaves(f"broker {number}")
        silent = fault.args["how"] == "silent"
        away.kafka.cut_from_peers(number, controller=fault.args["controller_too"], silent=silent)
        time.sleep(fault.length_s)
    return detail


def min_insync_lost(system: System, fault: Planned) -> Detail:
    """Two brokers are away: nothing is appended until the second one is back."""
    detail: Detail = {"how": fault.args["how"], "left": fault.args["left"]}
    with brokers_of(system, detail) as away:
        for node in away.kafka.cluster.brokers:
            if node.number != fault.args["left"]:
                away.end(node.number, fault.args["how"])
        time.sleep(fault.length_s)
    return detail


def controller_down(system: System, fault: Planned) -> Detail:
    """No controller: no leader moves, no replica leaves the ones in sync or joins them."""
    detail: Detail = {"how": fault.args["how"]}
    with brokers_of(system, detail) as away:
        away.leaves("controller")
        end(away.kafka.cluster.controller, fault.args["how"])
        time.sleep(fault.length_s)
    return detail


def brokers_kill(system: System, fault: Planned) -> Detail:
    """SIGKILL of all three at once; the controller lives."""
    detail: Detail = {}
    with brokers_of(system, detail) as away:
        for node in away.kafka.cluster.brokers:
            away.end(node.number, "kill")
        time.sleep(fault.length_s)
    return detail


def end(node: LocalBroker, how: str) -> None:
    """Stop it in order, kill it or freeze it."""
    {"stop": node.stop, "kill": node.kill, "freeze": node.pause}[how]()


def chosen(system: System, fault: Planned, detail: Detail) -> int:
    """The broker that has the fault's role now, or the planned one; noted in the detail."""
    role, partition = fault.args["role"], fault.args["partition"]
    bootstrap, settings = system.kafka.bootstrap, system.settings
    found: int | None = None
    if role == "group coordinator":
        found = group_coordinator(bootstrap, APP_ID)
    elif role == "transaction coordinator":
        found = leader(bootstrap, TRANSACTIONS, partition % TRANSACTION_PARTITIONS)
    elif role != "any":
        topics = {
            "leader of payments": settings.topic(PAYMENTS),
            "leader of charge-results": settings.topic(RESULTS),
            "leader of a changelog": settings.changelog("charges"),
        }  # fmt: skip
        found = leader(bootstrap, topics[role], partition % PARTITIONS)
    detail |= {"role": role if found else "any", "broker": found or fault.args["broker"]}
    return int(detail["broker"])
