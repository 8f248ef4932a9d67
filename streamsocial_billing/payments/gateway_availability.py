"""Knows for each gateway whether it is called now: breaker, switch, account."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import orjson

from faust_exactly_once import Layer, find_unit
from streamsocial_billing.domain.times import now_ms
from streamsocial_billing.gateways.base import Gateway
from streamsocial_billing.gateways.breaker import STATES, Rules
from streamsocial_billing.gateways.resilient import ResilientGateway
from streamsocial_billing.gateways.routing import participation
from streamsocial_billing.payments.open_payments import OpenPaymentCounts, Tally
from streamsocial_billing.settings import RETRY, Settings
from tables.gateway_switches import GatewaySwitch, first_order, switch_key

logger = logging.getLogger(__name__)

TABLE: Final = "gateway_switches"
LOOK_EVERY_S: Final = 1.0
NOT_CONFIGURED: Final = "not_configured"
ALL_STATES: Final = (*STATES, "stopped", "account_changed", NOT_CONFIGURED)
MOST_SWITCHES: Final = 100
"""Rows about gateways in one task."""


@dataclass(frozen=True, slots=True)
class GatewayStatus:
    """One gateway as this worker sees it; `state` is one of ALL_STATES, a person's stop before all others.

    `openings`: how often the breaker opened since the process began. `foreign`: accounts of open payments
    that are not the gateway's. `since_ms`: when it came to be called no more, ms since the epoch; None while
    it is called. `actor`: who stopped it, empty if nobody did. `reason`: why it is not called: what that
    person wrote, or the reason code of the last call that failed.
    """

    name: str
    state: str
    openings: int
    foreign: tuple[str, ...]
    since_ms: int | None = None
    actor: str = ""
    reason: str = ""


class Gatekeeper:
    """Wraps the gateways; `resilient` is what billing, resolver and refunds call, by the gateway's name."""

    def __init__(
        self, layer: Layer, gateways: Mapping[str, Gateway], settings: Settings, rules: Rules
    ) -> None:
        self.open_counts = OpenPaymentCounts()
        self.wrapped = dict(gateways)
        self.resilient = {
            name: ResilientGateway(gateway, settings.calls_at_once, rules, self.why_not, self._may_hang)
            for name, gateway in gateways.items()
        }
        self._triggers = settings.topic(RETRY)
        self._participation = participation(settings)
        self._layer = layer
        self._newest: dict[str, GatewaySwitch] = {}
        self._logged: dict[str, GatewaySwitch] = {}
        self._foreign: dict[str, tuple[str, ...]] = {}
        self._foreign_since_ms: dict[str, int] = {}
        self._waited_for: frozenset[str] = frozenset()

    def why_not(self, gateway: str) -> str | None:
        """Why no call may go to this gateway: a reason of NOT_CALLED, or None.

        In a handler its task's own committed row counts, so a stop holds from the commit of its unit on, and
        after a restart before the first event; elsewhere the newest row that this worker has seen.
        """
        unit = find_unit()
        if unit is None:
            switch = self._newest.get(gateway)
        else:
            row = unit.task.committed[TABLE](_row_key(unit.task.partition, gateway))
            switch = None if row is None else _switch_of(row)
        return self._why_not(gateway, switch) if switch or gateway in self._foreign else None

    def _may_hang(self) -> bool:
        """True in the unit of a trigger: it holds up the commits of triggers, not those of new payments."""
        unit = find_unit()
        return unit is None or unit.event.topic == self._triggers

    def _why_not(self, gateway: str, switch: GatewaySwitch | None) -> str | None:
        if switch is not None and switch["stopped"]:
            return "stopped"
        if gateway in self._foreign:
            accepted = switch["account"] if switch is not None else None
            return None if accepted == self.wrapped[gateway].account else "account_changed"
        return None

    def permits(self, gateway: str) -> float:
        """How many calls make sense now: math.inf, 1 (a probe), 0.

        What is open at a gateway that is not set up here waits, with the alarm: no try of its schedule is
        used up. Rows of an early release say no gateway (""): their payment's entry is looked at.
        """
        resilient = self.resilient.get(gateway)
        if resilient is None:
            return 0 if gateway else 1
        return 0 if self._why_not(gateway, self._newest.get(gateway)) else resilient.permits()

    async def run(self) -> None:
        """Look again and again, until cancelled; says first which gateways take part."""
        logger.info("%s", self._participation)
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            self.look()

    def look(self) -> None:
        """Read the switches of the tasks here, compare accounts; says what has changed."""
        self.open_counts.keep_only(self._layer.running_partitions())
        newest: dict[str, GatewaySwitch] = {}
        for partition in self._layer.running_partitions():
            for _, value in self._layer.committed_items(partition, TABLE, MOST_SWITCHES):
                switch: GatewaySwitch = orjson.loads(value)
                known = newest.get(switch["gateway"])
                if known is None or is_newer(switch, known):
                    newest[switch["gateway"]] = switch
        for gateway, switch in newest.items():
            _log_switch(self._logged.get(gateway), switch)
        self._logged |= newest
        self._newest = newest  # without tasks it knows nothing: an alarm must not rest on what was
        tally = self.open_counts.total()
        self._compare_accounts(tally)
        self._look_for_waiting(tally)

    def _compare_accounts(self, tally: Tally) -> None:
        for name, gateway in self.wrapped.items():
            account = gateway.account
            others = tally.accounts.get(name, set()) - {account} if account else set()
            foreign = tuple(sorted(others))
            if foreign and name not in self._foreign:
                logger.error(
                    "gateway %s is stopped: its account is %s, open payments belong to %s; to go on with it: "
                    "gateways start %s --account %s", name, account, ", ".join(foreign), name, account,
                )  # fmt: skip
                self._foreign_since_ms[name] = now_ms()
            if foreign:
                self._foreign[name] = foreign
            else:
                self._foreign.pop(name, None)

    def _look_for_waiting(self, tally: Tally) -> None:
        """Open payments of a gateway that is not set up here wait for it; earlier releases named none."""
        open_at = {name for (name, _), count in tally.counts.items() if name and count}
        waited_for = frozenset(open_at - self.resilient.keys())
        for name in sorted(waited_for - self._waited_for):
            logger.error("open payments wait: gateway %s is not set up here", name)
        self._waited_for = waited_for

    def status(self) -> list[GatewayStatus]:
        """Every configured gateway, and every other one that is stopped or that open payments wait for."""
        stopped = {name for name, one in self._newest.items() if one["stopped"]}
        names = self.resilient.keys() | stopped | self._waited_for
        return [self._status(name) for name in sorted(names)]

    def _status(self, name: str) -> GatewayStatus:
        resilient, switch = self.resilient.get(name), self._newest.get(name)
        why = self._why_not(name, switch)
        openings, foreign = resilient.breaker.openings if resilient else 0, self._foreign.get(name, ())
        if why == "stopped" and switch is not None:
            first = first_order(switch)
            return GatewayStatus(
                name=name, state=why, openings=openings, foreign=foreign, since_ms=first["at"],
                actor=first["actor"], reason=first["reason"],
            )  # fmt: skip
        if resilient is None:
            reason = "open payments wait for it, it is not set up here"
            return GatewayStatus(
                name=name, state=why or NOT_CONFIGURED, openings=0, foreign=(), since_ms=None, actor="",
                reason=reason,
            )  # fmt: skip
        if why == "account_changed":
            reason = f"its account is {resilient.account}, open payments belong to {', '.join(foreign)}"
            return GatewayStatus(
                name=name, state=why, openings=openings, foreign=foreign,
                since_ms=self._foreign_since_ms.get(name), actor="", reason=reason,
            )  # fmt: skip
        breaker, open_for_s = resilient.breaker, resilient.open_for_s()
        if open_for_s is None:
            return GatewayStatus(name, breaker.state, openings, foreign)
        since_ms = now_ms() - round(open_for_s * 1000)
        return GatewayStatus(
            name=name, state=breaker.state, openings=openings, foreign=foreign, since_ms=since_ms, actor="",
            reason=breaker.last_failure,
        )  # fmt: skip


def is_newer(one: GatewaySwitch, other: GatewaySwitch) -> bool:
    """True if this order stands against the other; every task must judge alike."""
    return (one["at"], one["command_id"]) > (other["at"], other["command_id"])


def _log_switch(before: GatewaySwitch | None, now: GatewaySwitch) -> None:
    if (before is not None and before["stopped"]) != now["stopped"]:
        first = first_order(now)
        logger.warning(
            "gateway %s is %s by %s: %s", now["gateway"], "stopped" if now["stopped"] else "started",
            first["actor"], first["reason"],
        )  # fmt: skip


@lru_cache(maxsize=10_000)
def _row_key(partition: int, gateway: str) -> bytes:
    return switch_key(partition, gateway).encode()


@lru_cache(maxsize=1000)
def _switch_of(row: bytes) -> GatewaySwitch:
    """What a committed row says; to be read only. Each call asks, and hardly any row ever changes."""
    switch: GatewaySwitch = orjson.loads(row)
    return switch
