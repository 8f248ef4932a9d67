"""Faults around the workers: connections, broker, topics, gateway, intake."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType

from broker import LocalBroker
from torture.cluster import START_WITHIN_S, ProxiedBroker
from torture.process_faults import REACHED_WITHIN_S, Detail
from torture.proxy import Bundle, Link
from torture.schedule import Planned
from torture.system import System

TOO_SMALL_BYTES: Final = 90


@contextmanager
def link_of(system: System, fault: Planned) -> Iterator[Link | Bundle]:
    """The fault's link, for this fault alone; it heals afterwards."""
    name = fault.target.removeprefix("link:")
    link = system.kafka.links_of_clients[name]
    with system.locks[f"link:{name.partition(':')[0]}"]:
        try:
            yield link
        finally:
            link.trouble()


def cut(system: System, fault: Planned) -> Detail:
    """Every connection is reset; new ones too, for a while."""
    with link_of(system, fault) as link:
        link.trouble(refuse=True)
        count = link.cut()
        time.sleep(fault.length_s)
        return {"connections": count}


def half_open(system: System, fault: Planned) -> Detail:
    """Connections stay open, nothing passes; then everything arrives late, or never."""
    with link_of(system, fault) as link:
        link.trouble(silent=True)
        time.sleep(fault.length_s)
        count = link.open_connections()
        if fault.args["then"] == "is cut":
            link.cut()
        return {"connections": count, "then": fault.args["then"]}


def delay(system: System, fault: Planned) -> Detail:
    """Everything takes longer, both ways."""
    with link_of(system, fault) as link:
        link.trouble(delay_s=fault.args["delay_s"])
        time.sleep(fault.length_s)
        return dict(fault.args)


def end_txn_late(system: System, fault: Planned) -> Detail:
    """EndTxn alone reaches the broker late, perhaps after its sender has given up."""
    return _end_txn(system, fault, hold_request_s=fault.args["hold_s"])


def end_txn_answer_late(system: System, fault: Planned) -> Detail:
    """EndTxn arrives, its answer comes late."""
    return _end_txn(system, fault, hold_answer_s=fault.args["hold_s"])


def _end_txn(system: System, fault: Planned, **hold: float) -> Detail:
    with link_of(system, fault) as link:
        before = link.seen["held"]
        link.trouble(**hold)
        time.sleep(fault.length_s)
        return {"held": link.seen["held"] - before, "hold_s": fault.args["hold_s"]}


def refused(system: System, fault: Planned) -> Detail:
    """The broker takes no record of a topic that is larger than next to nothing."""
    name = system.settings.topic(fault.args["topic"])
    with system.locks["topics"]:
        exits = system.exits
        alter_topic(system, name, str(TOO_SMALL_BYTES))
        try:
            time.sleep(fault.length_s)
        finally:
            alter_topic(system, name, None)
        return {"topic": name, "exits": system.exits - exits}


def alter_topic(system: System, name: str, max_bytes: str | None) -> None:
    """Set the largest record of a topic, or take that back."""
    change = AlterConfigOpType.SET if max_bytes is not None else AlterConfigOpType.DELETE
    entry = ConfigEntry("max.message.bytes", max_bytes or "", incremental_operation=change)
    wanted = ConfigResource(ResourceType.TOPIC, name, incremental_configs=[entry])
    until = time.monotonic() + 60
    while True:
        try:
            client = AdminClient(system.settings.client_config() | {"log_level": 0})
            client.incremental_alter_configs([wanted])[wanted].result(10)
            return
        except Exception:  # the broker may be down this moment
            if time.monotonic() > until:
                raise
            time.sleep(0.5)


def broker_kill(system: System, fault: Planned) -> Detail:
    """SIGKILL of the broker, then a start from the same data."""
    with system.locks["broker"]:
        broker = _only(system)
        broker.kill()
        time.sleep(fault.length_s)
        began = time.monotonic()
        broker.start(START_WITHIN_S)
        return {"start_s": round(time.monotonic() - began, 2)}


def _only(system: System) -> LocalBroker:
    assert isinstance(system.kafka, ProxiedBroker)  # noqa: S101 - for mypy: three brokers have other faults
    return system.kafka.broker


def broker_freeze(system: System, fault: Planned) -> Detail:
    """SIGSTOP of the broker for longer than a transaction may last."""
    with system.locks["broker"]:
        broker = _only(system)
        broker.pause()
        try:
            time.sleep(fault.length_s)
        finally:
            broker.resume()
        return {}


GATEWAY: Final[Mapping[str, Callable[[Mapping[str, Any]], dict[str, float]]]] = {
    "gateway_error_before": lambda args: {"error_before": args["rate"]},
    "gateway_drop_after": lambda args: {"drop_after_charge": args["rate"]},
    "gateway_timeout": lambda args: {"timeout": args["rate"], "timeout_ms": 3000},
    "gateway_409": lambda args: {"conflict": args["rate"]},
    "gateway_429": lambda args: {"rate_limit": args["rate"], "retry_after_s": 1},
    "gateway_slow": lambda args: {"latency_ms": args["latency_ms"]},
}


def gateway(system: System, fault: Planned) -> Detail:
    """The gateway misbehaves at this rate."""
    plan = GATEWAY[fault.kind](fault.args)
    with system.locks["gateway"]:
        before = system.gateway.stats()
        system.gateway.faults(**plan, seed=fault.args.get("seed", 0))
        try:
            time.sleep(fault.length_s)
        finally:
            after = system.gateway.stats()
            system.gateway.faults()
        drawn = {name: n - before["faults"].get(name, 0) for name, n in after["faults"].items()}
        return {**plan, "calls": after["calls"] - before["calls"], "drawn": drawn}


def intake_kill(system: System, fault: Planned) -> Detail:
    """SIGKILL of the intake, mostly between the last record of a transaction and its commit."""
    intake = system.intake
    with intake.lock:
        if intake.done:
            return {"skipped": "everything was sent"}
        amid = bool(fault.args["amid"]) and intake.stop_amid(REACHED_WITHIN_S)
        intake.kill()
        time.sleep(fault.length_s)
        intake.launch()
        return {"amid": amid}
