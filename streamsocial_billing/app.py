"""The map of the system: topics, tables, agents, timers, pages. Nothing else puts parts together."""

import asyncio
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final
from weakref import WeakKeyDictionary

import faust
from prometheus_client import CollectorRegistry

import faust_exactly_once as exactly_once
from faust_exactly_once import Cluster, Metrics, TriggerWriter, batched, output
from streamsocial_billing.audit.watching import LiveAudit
from streamsocial_billing.data_folder import note_on
from streamsocial_billing.framework_options import faust_options, layer_options
from streamsocial_billing.gateways.base import Gateway
from streamsocial_billing.gateways.breaker import Rules
from streamsocial_billing.gateways.routing import default_problem
from streamsocial_billing.intake.appending import appending
from streamsocial_billing.intake.http import HttpIntake
from streamsocial_billing.intake.http import Rules as IntakeRules
from streamsocial_billing.intake.webhooks.appending import appending_events
from streamsocial_billing.intake.webhooks.configured import configured_sources
from streamsocial_billing.intake.webhooks.receiver import Receiver
from streamsocial_billing.kafka import production_checks as kafka_checks
from streamsocial_billing.kafka.topics import create_topics
from streamsocial_billing.operations.handler import Commands, OnCommand
from streamsocial_billing.operations.kill_switch import START, STOP, KillSwitches
from streamsocial_billing.operations.replies import Answers
from streamsocial_billing.operations.resolve import RESOLVE, Resolving
from streamsocial_billing.payments.bad_input import Reader
from streamsocial_billing.payments.charge import Billing
from streamsocial_billing.payments.following import Following
from streamsocial_billing.payments.gateway_availability import Gatekeeper
from streamsocial_billing.payments.gateway_event import REPORTED_EFFECTS, Observer, is_forgettable
from streamsocial_billing.payments.refund import Refunds
from streamsocial_billing.payments.retry import Resolver
from streamsocial_billing.payments.unit_writer import UnitWriter
from streamsocial_billing.settings import (
    ANSWERS,
    AUTHENTICATIONS,
    COMMANDS,
    DEAD_LETTERS,
    GATEWAY_EVENTS,
    METRICS,
    PAYMENTS,
    RESULTS,
    RETRY,
    Settings,
)
from streamsocial_billing.subscriptions.handler import Subscriptions
from streamsocial_billing.timers.due_payments import DueTimer
from streamsocial_billing.timers.loops import until_the_end
from streamsocial_billing.timers.renewals import RenewalTimer
from streamsocial_billing.timers.retention import RetentionTimer
from streamsocial_billing.web.api import page_of_state, page_of_tables
from streamsocial_billing.web.audit import page_of_audit
from streamsocial_billing.web.dashboard import page_of_dashboard
from streamsocial_billing.web.driver import bound_connections
from streamsocial_billing.web.payment_metrics import PaymentMetrics
from streamsocial_billing.web.payments_in import page_of_payments, page_of_questions
from streamsocial_billing.web.reconciliation import page_of_reconciliation
from streamsocial_billing.web.status.overview import Overview
from streamsocial_billing.web.status.page import page_of_status
from streamsocial_billing.web.status.peers import Peers, asking
from streamsocial_billing.web.status.report import Reporter
from streamsocial_billing.web.subscriptions import page_of_subscriptions
from streamsocial_billing.web.webhooks_in import page_of_webhooks, webhook_counter
from tables import as_declared, declare_all

logger = logging.getLogger(__name__)

GATEKEEPERS: Final[WeakKeyDictionary[Any, Gatekeeper]] = WeakKeyDictionary()
"""Of each app that was built here: for who looks at it from outside."""


def create_app(
    settings: Settings, gateways: Mapping[str, Gateway], breaker: Rules | None = None, **overrides: Any
) -> faust.App:
    """Build the whole app; the world comes in as arguments.

    Args:
        settings: what the operator chose.
        gateways: by the value of an event's `gateway` field; each gets a breaker, a bound, a kill switch.
        breaker: when a gateway is called no more for a while.
        overrides: of `exactly_once.Options`, for tests (a probe at a crash point, say).
    """
    app = faust.App(settings.app_id, **faust_options(settings))
    bound_connections(app, settings.max_connections)
    layer = exactly_once.install(app, layer_options(settings, len(gateways), overrides))
    exactly_once.before_start(app, lambda cluster: _prepare(app, settings, cluster))

    # topics: what is read, what is written
    payments, triggers, messages, orders = (
        batched(app.topic(settings.topic(name))) for name in (PAYMENTS, RETRY, GATEWAY_EVENTS, COMMANDS)
    )
    results, metrics, dead_letters, answers, renewals, authentications = (
        output(app, settings.topic(name))
        for name in (RESULTS, METRICS, DEAD_LETTERS, ANSWERS, PAYMENTS, AUTHENTICATIONS)
    )

    # tables
    table = declare_all(app, exactly_once.counters)
    counters, subscribed = table["task_counters"], table["subscriptions"]
    unit_writer = UnitWriter(
        results=results, metrics=metrics, rows=table, tables=as_declared(table), counters=counters,
        authentications=authentications,
    )  # fmt: skip
    reader = Reader(dead_letters, counters, layer.state)

    # rooms: what is done with a record
    gatekeeper = GATEKEEPERS[app] = Gatekeeper(layer, gateways, settings, breaker or Rules())
    resilient = gatekeeper.resilient
    subscriptions = Subscriptions(unit_writer, subscribed, renewals, resilient, settings.dunning_after_days)
    following = Following(unit_writer, subscriptions.learn, settings.authentication_ms)
    refunds = Refunds(settings, unit_writer, resilient, following.follow)
    billing = Billing(
        settings=settings, reader=reader, writer=unit_writer, gateways=resilient, refunds=refunds,
        follow=following.follow,
    )  # fmt: skip
    observer = Observer(reader, unit_writer, resilient, following.follow)
    resolver = Resolver(
        settings, reader, unit_writer, resilient, following,
        kinds={"subscription": subscriptions.triggered, "gateway_event": observer.forget},
    )  # fmt: skip
    kill_switches = KillSwitches(table["gateway_switches"])
    by_hand = Resolving(unit_writer, gateways, following.follow, settings.gateway_deadline_s / 2)
    handlers: dict[str, OnCommand] = {
        **subscriptions.commands(), STOP: kill_switches.stop, START: kill_switches.start,
        RESOLVE: by_hand.resolve,
    }  # fmt: skip
    commands = Commands(reader, Answers(answers), handlers)

    # agents
    @app.agent(payments)
    async def bill(stream: Any) -> None:
        """Charges and refunds."""
        async for batch in stream:
            await batch.each(billing.charge)

    @app.agent(triggers)
    async def resolve(stream: Any) -> None:
        """Looks again at what is open, due, or over."""
        async for batch in stream:
            await batch.each(resolver.resolve)

    @app.agent(messages)
    async def observe(stream: Any) -> None:
        """Takes in what gateways report."""
        async for batch in stream:
            await batch.each(observer.observe)

    @app.agent(orders)
    async def handle_command(stream: Any) -> None:
        """Carries out what people ordered."""
        async for batch in stream:
            await batch.each(commands.handle)

    # timers, pages
    live = LiveAudit(layer, counters, settings.topic(PAYMENTS))
    overview = Overview(Reporter(app, layer, gatekeeper, live), Peers(asking(app)))
    _start_timers(app, layer, TriggerWriter(settings.client_config(), settings.topic(RETRY)), gatekeeper)
    until_the_end(app, "audit_all_the_time", live.run)
    until_the_end(app, "look_at_the_system", overview.run)
    layer_metrics = Metrics(layer)
    layer_metrics.registry.register(REPORTED_EFFECTS)
    layer_metrics.registry.register(PaymentMetrics(gatekeeper, reader.dead_letter_counts))
    page_of_tables(app, layer, settings, table["charges"], table["payments"])
    page_of_state(app, layer, layer_metrics, gatekeeper)
    page_of_reconciliation(app, settings, layer_metrics)
    page_of_status(app, overview)
    page_of_dashboard(app, overview, live.topic)
    page_of_audit(app, layer, live, layer_metrics, overview)
    page_of_subscriptions(app, layer, settings, subscribed)
    _take_payments_and_webhooks(
        app, settings, gateways, billing, layer=layer, registry=layer_metrics.registry
    )  # fmt: skip
    return app


def _start_timers(
    app: faust.App, layer: exactly_once.Layer, writer: TriggerWriter, gatekeeper: Gatekeeper
) -> None:
    """Start what is done by the clock with the worker; at its end close `writer` and the gateways."""
    due = DueTimer(layer, writer, gatekeeper.permits, gatekeeper.open_counts)
    until_the_end(app, "trigger_due_payments", due.run)
    until_the_end(app, "trigger_due_subscriptions", RenewalTimer(layer, writer).run)
    until_the_end(app, "sweep_old_payments", RetentionTimer(layer, writer).run)
    messages = RetentionTimer(layer, writer, "gateway_events", is_forgettable, "gateway_event")
    until_the_end(app, "sweep_old_messages", messages.run)
    until_the_end(app, "watch_gateways", gatekeeper.run)

    @app.on_before_shutdown.connect
    async def close_gateways(*_: Any, **__: Any) -> None:
        writer.close()
        for gateway in gatekeeper.resilient.values():
            await gateway.close()


def _take_payments_and_webhooks(
    app: Any, settings: Settings, gateways: Mapping[str, Gateway], rules: IntakeRules,
    layer: exactly_once.Layer, registry: CollectorRegistry,
) -> None:  # fmt: skip
    """Add `POST /payments` with `POST /webhooks/{gateway}`; close what they append with at the end."""
    payments = appending(settings, lambda: Path(str(app.conf.datadir)))
    events = appending_events(settings)

    def queued(user_id: str, most: int) -> int:
        key = user_id.encode()
        partition, _ = app.router.place(key)
        return layer.unfinished_of_key(partition, key, most)

    intake = HttpIntake(rules, payments.add, queued=queued, most_of_user=settings.max_waiting_per_user)
    page_of_payments(app, settings, intake, registry)
    page_of_questions(app, settings, intake)
    sources = configured_sources(settings, gateways)
    count = webhook_counter(registry, sources)
    page_of_webhooks(app, Receiver(
        sources, events.add, lambda gateway, outcome: count.labels(gateway, outcome).inc()
    ))  # fmt: skip

    @app.on_before_shutdown.connect  # type: ignore[untyped-decorator]
    async def close_intakes(*_: Any, **__: Any) -> None:
        # Faust ends its web server last: until then nothing could be appended for those who ask
        await app.web.stop_server()
        await asyncio.gather(payments.close(), events.close())


def _prepare(app: faust.App, settings: Settings, cluster: Cluster) -> None:
    """What a worker needs before it starts; raises SetupRefused."""
    note = note_on(Path(app.conf.datadir), settings.app_id)
    if note is not None:
        logger.warning("%s", note)
    problem = default_problem(settings)
    if problem is not None:
        raise exactly_once.SetupRefused(problem)
    create_topics(settings, cluster)
    kafka_checks.warn(settings)
