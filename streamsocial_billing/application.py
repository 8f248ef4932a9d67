"""The map of the system: topics, tables, agents, views."""

import asyncio
import ssl
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import faust

from streamsocial_billing import exactly_once
from streamsocial_billing.answers import Answers
from streamsocial_billing.audit.watching import LiveAudit
from streamsocial_billing.billing import Billing
from streamsocial_billing.books import Books
from streamsocial_billing.card_numbers import mask_card_numbers
from streamsocial_billing.commands import Commands, OnCommand
from streamsocial_billing.exactly_once import Layer, Options, batched, output
from streamsocial_billing.exactly_once.metrics import Metrics
from streamsocial_billing.exactly_once.nudges import Nudger
from streamsocial_billing.gatekeeping import Gatekeeper
from streamsocial_billing.gateways.base import Gateway
from streamsocial_billing.gateways.breaker import Rules
from streamsocial_billing.observing import GATEWAY_TOLD, Observer, is_forgettable
from streamsocial_billing.refunds import Refunds
from streamsocial_billing.resolve_command import RESOLVE, Resolving
from streamsocial_billing.resolver import DueTimer, Resolver
from streamsocial_billing.scheduling import RenewalTimer
from streamsocial_billing.settings import (
    ANSWERS,
    COMMANDS,
    DEAD_LETTERS,
    GATEWAY_EVENTS,
    METRICS,
    PAYMENTS,
    RESULTS,
    RETRY,
    Settings,
    SettingsError,
)
from streamsocial_billing.settling import Settlement
from streamsocial_billing.subscriptions import Subscriptions
from streamsocial_billing.sweeping import SweepTimer
from streamsocial_billing.switching import START, STOP, Switching
from streamsocial_billing.topics import create_topics
from streamsocial_billing.views.api import declare_views
from streamsocial_billing.views.audit import page_of_audit
from streamsocial_billing.views.payment_metrics import PaymentMetrics
from streamsocial_billing.views.receiving import declare_receivers
from streamsocial_billing.views.subscriptions import page_of_subscriptions
from tables.awaited_charges import declare_awaited_charges
from tables.business_refs import declare_business_refs
from tables.charges import declare_charges
from tables.gateway_events import declare_gateway_events
from tables.gateway_switches import declare_gateway_switches
from tables.open_payments import declare_open_payments
from tables.payments import declare_payments
from tables.subscriptions import declare_subscriptions
from tables.task_counters import declare_task_counters

# in the order in which `Books` has them
TABLES = (
    declare_charges, declare_payments, declare_open_payments, declare_business_refs, declare_gateway_events,
    declare_awaited_charges,
)  # fmt: skip
GAP_ALARM_S = 60.0  # one payment that holds up the commits behind it for so long is an alarm ...
GAP_ALARM_DEADLINES = 3  # ... but never less than so many gateway deadlines


def create_app(
    settings: Settings, gateways: Mapping[str, Gateway], breaker: Rules | None = None, **layer_options: Any
) -> faust.App:
    """Build the whole app; the world comes in as arguments.

    Args:
        settings: what the operator chose.
        gateways: by the value of an event's `gateway` field; each gets a breaker, a bound, a switch.
        breaker: when a gateway is called no more for a while.
        layer_options: overrides of `exactly_once.Options`, for tests (a probe at a crash point, say).
    """
    app = faust.App(
        settings.app_id,
        **exactly_once.settings(settings.broker_urls, session_timeout_s=settings.session_timeout_s),
        **_faust_settings(settings),
    )
    results, metrics, dead_letters, answers = (
        output(app, settings.topic(n)) for n in (RESULTS, METRICS, DEAD_LETTERS, ANSWERS)
    )
    layer = exactly_once.install(app, _layer_options(settings, layer_options))
    exactly_once.before_start(app, lambda cluster: create_topics(settings, cluster))

    payments = batched(app.topic(settings.topic(PAYMENTS)))
    retry = batched(app.topic(settings.topic(RETRY)))
    messages = batched(app.topic(settings.topic(GATEWAY_EVENTS)))
    orders = batched(app.topic(settings.topic(COMMANDS)))
    counters = declare_task_counters(app, exactly_once.counters)
    tables = [*(declare(app) for declare in TABLES), counters]
    books = Books(results, metrics, dead_letters, *tables)
    live = LiveAudit(layer, counters, settings.topic(PAYMENTS))
    settlement = Settlement(books)
    gatekeeper = Gatekeeper(app, layer, gateways, settings, breaker or Rules())
    guarded = gatekeeper.guarded
    refunds = Refunds(settings, books, guarded, settlement)
    observer = Observer(books, guarded, lambda: layer.partitions, settlement)
    billing = Billing(settings, books, guarded, lambda: layer.partitions, settlement, refunds)
    subscribed = declare_subscriptions(app)
    subscriptions = Subscriptions(
        books, subscribed, output(app, settings.topic(PAYMENTS)), guarded, settings.dunning_after_days
    )
    settlement.hooks.append(subscriptions.learn)
    resolver = Resolver(
        settings, books, guarded, lambda: layer.partitions, settlement, refunds,
        kinds={"subscription": subscriptions.nudged, "gateway_event": observer.forget},
    )  # fmt: skip
    switching = Switching(declare_gateway_switches(app), Answers(answers))
    by_hand = Resolving(books, gateways, settlement, Answers(answers), settings.gateway_deadline_s / 2)
    handlers: dict[str, OnCommand] = {
        **subscriptions.commands(), STOP: switching.stop, START: switching.start, RESOLVE: by_hand.resolve,
    }  # fmt: skip
    commands = Commands(books, lambda: layer.partitions, handlers)

    @app.agent(payments)
    async def bill(stream: Any) -> None:
        async for batch in stream:
            await batch.each(billing.charge)

    @app.agent(retry)
    async def resolve(stream: Any) -> None:
        async for batch in stream:
            await batch.each(resolver.resolve)

    @app.agent(messages)
    async def observe(stream: Any) -> None:
        async for batch in stream:
            await batch.each(observer.observe)

    @app.agent(orders)
    async def obey(stream: Any) -> None:
        async for batch in stream:
            await batch.each(commands.obey)

    _run_beside(app, layer, settings, gatekeeper, live)
    told = Metrics(layer)
    told.registry.register(GATEWAY_TOLD)
    told.registry.register(PaymentMetrics(gatekeeper, books.buried))
    declare_views(app, layer, settings, books.charges, books.payments, told, gatekeeper)
    page_of_audit(app, layer, live, told)
    declare_receivers(app, settings, gateways, billing.decide, told.registry)
    page_of_subscriptions(app, layer, settings, subscribed)
    return app


def _run_beside(
    app: Any, layer: Layer, settings: Settings, gatekeeper: Gatekeeper, live: LiveAudit
) -> None:  # fmt: skip
    """Look for due payments, audit as long as the worker runs; close the gateways at its end."""
    nudger = Nudger(settings.client_config(), settings.topic(RETRY))

    @app.on_before_shutdown.connect  # type: ignore[untyped-decorator]
    async def close_gateways(*_: Any, **__: Any) -> None:
        nudger.close()
        for gateway in gatekeeper.guarded.values():
            await gateway.close()

    @app.task  # type: ignore[untyped-decorator]
    async def nudge_due_payments() -> None:
        with suppress(asyncio.CancelledError):
            await DueTimer(layer, nudger, gatekeeper.takes, gatekeeper.census).run()

    @app.task  # type: ignore[untyped-decorator]
    async def watch_gateways() -> None:
        with suppress(asyncio.CancelledError):
            await gatekeeper.run()

    @app.task  # type: ignore[untyped-decorator]
    async def sweep_old_payments() -> None:
        with suppress(asyncio.CancelledError):
            await SweepTimer(layer, nudger).run()

    @app.task  # type: ignore[untyped-decorator]
    async def nudge_due_subscriptions() -> None:
        with suppress(asyncio.CancelledError):
            await RenewalTimer(layer, nudger).run()

    @app.task  # type: ignore[untyped-decorator]
    async def audit_all_the_time() -> None:
        with suppress(asyncio.CancelledError):
            await live.run()

    @app.task  # type: ignore[untyped-decorator]
    async def sweep_old_messages() -> None:
        with suppress(asyncio.CancelledError):
            await SweepTimer(layer, nudger, "gateway_events", is_forgettable, "gateway_event").run()


def _layer_options(settings: Settings, overrides: Mapping[str, Any]) -> Options:
    chosen: dict[str, Any] = {
        "client_config": settings.client_config(),
        "commit_interval_ms": settings.commit_interval_ms,
        "max_running": settings.max_in_flight,
        "session_advice": "choose another BILLING_SESSION_TIMEOUT_S",
        "broker_advice": "start one (make kafka), or set BILLING_BROKER",
        "gap_alarm_s": max(GAP_ALARM_S, GAP_ALARM_DEADLINES * settings.gateway_deadline_s),
        "key_text": _key_text,
    }
    return Options(**{**chosen, **overrides})


def _key_text(key: bytes) -> str:
    """How the log shows a message key: a sender may have put a card number where the user id belongs."""
    return mask_card_numbers(key)[0].decode("utf-8", "backslashreplace")


def _faust_settings(settings: Settings) -> dict[str, Any]:
    return {
        "topic_partitions": settings.partitions,
        "topic_replication_factor": settings.replication,
        "web_bind": "127.0.0.1",  # user data: an operator opens it with --web-bind, then sets the token
        "web_host": "127.0.0.1",
        "web": "billing://",
        "worker_redirect_stdouts": False,
        **kafka_credentials(settings),
    }


def _tls_context(settings: Settings) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=settings.kafka_ca_file)
    except OSError as exc:
        raise SettingsError(
            f"BILLING_KAFKA_CA_FILE={settings.kafka_ca_file!r} is not a PEM file of certificates"
        ) from exc
    if settings.kafka_cert_file is not None:
        try:  # an empty password: OpenSSL would ask for one on the terminal
            context.load_cert_chain(settings.kafka_cert_file, settings.kafka_key_file, password="")
        except OSError as exc:
            raise SettingsError(
                f"BILLING_KAFKA_CERT_FILE={settings.kafka_cert_file!r} with "
                f"BILLING_KAFKA_KEY_FILE={settings.kafka_key_file!r} are not a certificate with its "
                "unencrypted key in PEM form"
            ) from exc
    return context


def kafka_credentials(settings: Settings) -> dict[str, Any]:
    """TLS with SASL for the aiokafka side, from the same paths that librdkafka gets."""
    if settings.kafka_security_protocol == "PLAINTEXT":
        return {}
    context = None
    if settings.kafka_security_protocol in ("SSL", "SASL_SSL"):
        context = _tls_context(settings)
    if settings.kafka_security_protocol == "SSL":
        return {"broker_credentials": faust.SSLCredentials(context)}
    return {
        "broker_credentials": faust.SASLCredentials(
            username=settings.kafka_sasl_username, password=settings.kafka_sasl_password,
            mechanism=settings.kafka_sasl_mechanism, ssl_context=context,
        )
    }  # fmt: skip
