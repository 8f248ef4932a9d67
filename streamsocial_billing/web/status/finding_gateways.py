"""What is wrong with the gateways."""

from __future__ import annotations

from collections.abc import Iterator

from streamsocial_billing.domain.english import counted
from streamsocial_billing.web.status.finding import CRITICAL, WARNING, Finding, sentence
from streamsocial_billing.web.status.state import CALLABLE, NOT_SET_UP, GatewayState, State


def of_gateways(state: State) -> Iterator[Finding]:
    if not state.gateways:
        yield Finding(
            CRITICAL, "no_gateway", "No gateway is set up: no payment can be charged.",
            action="Set the variables of a gateway (docs/gateways.md), then start the workers again.",
        )  # fmt: skip
    not_called = [one for one in state.gateways if one.state not in CALLABLE or one.since_ms is not None]
    none_left = len(not_called) == len(state.gateways)
    for one in not_called:
        wait = f" {counted(one.waiting, 'payment')} wait{'s' if one.waiting == 1 else ''} for it." \
            if one.waiting else ""  # fmt: skip
        if one.state == NOT_SET_UP:
            yield _not_set_up(one, wait)
        elif one.state == "stopped":
            yield _stopped(one, CRITICAL if none_left else WARNING, wait)
        elif one.state == "account_changed":
            yield Finding(
                severity=CRITICAL,
                code="gateway_account_changed",
                headline=f"Gateway {one.name} is not called: its account has changed.",
                detail=sentence(one.reason) + wait,
                since_ms=one.since_ms,
                action="Correct its key, or go on with the new account: "
                f"`streamsocial-billing gateways start "
                f'{one.name} --account ACCOUNT --reason "..."`.',
                subject=one.name,
            )  # fmt: skip
        else:
            yield Finding(
                severity=CRITICAL, code="gateway_failing",
                headline=f"Gateway {one.name} fails: no payment can be charged there.",
                detail=sentence(f"last error: {one.reason or 'not known'}; it is tried now and then") + wait,
                since_ms=one.since_ms,
                action="Look at the gateway. Payments wait; they are charged once it works again.",
                subject=one.name,
            )  # fmt: skip


def _not_set_up(one: GatewayState, wait: str) -> Finding:
    return Finding(
        severity=CRITICAL, code="gateway_not_set_up",
        headline=f"Gateway {one.name} is not set up, and open payments wait for it.",
        detail=f"They are not tried.{wait}", since_ms=one.since_ms,
        action="Set its variables (docs/gateways.md) and start the workers again; "
        "keep it until none is open.",
        subject=one.name,
    )  # fmt: skip


def _stopped(one: GatewayState, severity: str, wait: str) -> Finding:
    return Finding(
        severity=severity, code="gateway_stopped",
        headline=f"Gateway {one.name} is stopped: no payment is charged there.",
        detail=f"Stopped by {one.actor or 'an operator'}: \"{one.reason}\".{wait}", since_ms=one.since_ms,
        action=f'When the reason is gone: `streamsocial-billing gateways start {one.name} --reason "..."`.',
        subject=one.name,
    )  # fmt: skip
