"""What the settings mean for Faust and for the exactly-once layer."""

from collections.abc import Mapping
from typing import Any

import faust_exactly_once as exactly_once
from faust_exactly_once import Options
from streamsocial_billing import __version__
from streamsocial_billing.data_folder import default_folder
from streamsocial_billing.domain.card_numbers import mask_card_numbers
from streamsocial_billing.kafka.credentials import kafka_credentials
from streamsocial_billing.kafka.topics import REPLICATION_ADVICE
from streamsocial_billing.logs.setup import fold
from streamsocial_billing.payments.outcome_lines import log_outcomes
from streamsocial_billing.settings import PAYMENTS, Settings

WEB_BIND = "127.0.0.1"
GAP_ALARM_S = 60.0  # one payment that holds up the commits behind it for so long is an alarm ...
GAP_ALARM_DEADLINES = 3  # ... but never less than so many gateway deadlines

GROUP_FORMAT = 1
"""Raised by a release whose workers must not run beside older ones, in either direction: records or rows
that one of them would misread. Kafka then lets neither into the other's group."""


def faust_options(settings: Settings) -> dict[str, Any]:
    """The arguments of `faust.App`; raises SettingsError."""
    folder = default_folder(settings.app_id)
    return {
        **({} if folder is None else {"datadir": folder}),
        **exactly_once.settings(settings.broker_urls, session_timeout_s=settings.session_timeout_s),
        "topic_partitions": settings.partitions,
        "topic_replication_factor": settings.replication,
        "web_bind": WEB_BIND,  # user data: an operator opens it with --web-bind, then sets the token
        "web_host": WEB_BIND,
        "web": "billing://",
        "Worker": "streamsocial_billing.cli.worker_process:Worker",
        "worker_redirect_stdouts": False,
        **kafka_credentials(settings),
    }


def layer_options(settings: Settings, gateways: int, overrides: Mapping[str, Any]) -> Options:
    """The options of the layer; `gateways`: how many; `overrides`: a test's, a probe at a crash point say."""
    calls = settings.calls_at_once * max(1, gateways)  # one payment more would only wait for a call to end
    chosen: dict[str, Any] = {
        "client_config": settings.client_config(),
        "commit_interval_ms": settings.commit_interval_ms,
        "commit_distance_ms": settings.commit_distance_ms,
        "max_running": settings.max_in_flight,
        "max_running_of": {settings.topic(PAYMENTS): min(calls, settings.max_in_flight)},
        "session_advice": "choose another BILLING_SESSION_TIMEOUT_S",
        "broker_advice": "start one (make kafka), or set BILLING_BROKER",
        "replication_advice": REPLICATION_ADVICE,
        "head_of_line_alarm_s": max(GAP_ALARM_S, GAP_ALARM_DEADLINES * settings.gateway_deadline_s),
        "key_text": _key_text,
        "on_commit": log_outcomes,
        "event_word": "payment",
        "held_back_lines": lambda: fold.held_back,
        "release": __version__,
        "group_format": GROUP_FORMAT,
    }
    return Options(**{**chosen, **overrides})


def _key_text(key: bytes) -> str:
    """How the log shows a message key: a sender may have put a card number where the user id belongs."""
    return mask_card_numbers(key)[0].decode("utf-8", "backslashreplace")
