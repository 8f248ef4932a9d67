"""The only reader of the environment."""

from __future__ import annotations

import difflib
import math
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Final
from urllib.parse import urlsplit

PAYMENTS: Final = "payments"
RESULTS: Final = "charge-results"
METRICS: Final = "payment-metrics"
RETRY: Final = "payments-retry"
GATEWAY_EVENTS: Final = "gateway-events"
COMMANDS: Final = "billing-commands"
ANSWERS: Final = "billing-command-answers"
DEAD_LETTERS: Final = "payments-dlq"
REPLAYS: Final = "payments-dlq-replays"
BREAKS: Final = "reconciliation-breaks"
AUTHENTICATIONS: Final = "authentication-requests"

SOURCES: Final = (PAYMENTS, RETRY, GATEWAY_EVENTS, COMMANDS)
"""What the tasks consume: these share partitions, tables, transactions."""

PREFIX: Final = "BILLING_"
DEFAULT_KAFKA_PORT: Final = 9092
MAX_SECRET_FILE_BYTES: Final = 65_536
MAX_DUNNING: Final = 20
GATEWAYS: Final = ("simulated", "stripe", "paypal")
"""Every gateway that there is; a process has some of them set up."""

_TOPIC_PART = re.compile(r"[A-Za-z0-9._-]{0,180}")  # Kafka: 249 in all; leaves room for "-payments-changelog"
_HOST_PORT = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::(?P<port>[0-9]{1,5}))?")
_VISIBLE = re.compile(r"[!-~]+")
_WEBHOOK_ID = re.compile(r"[A-Za-z0-9]{1,50}")
_DIGITS = re.compile(r"[0-9]{1,12}")

PROTOCOLS: Final = ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL")
MECHANISMS: Final = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")


class SettingsError(ValueError):
    """Raised when a BILLING_ variable stops the start: its text names the variable and what is allowed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything that an operator can choose; the defaults are those of the README's table of settings.

    app_id                  Faust app id = consumer group = prefix of changelogs and transactional ids
    broker                  one or more `kafka://host:port`, `;`-separated as in Faust
    topic_prefix            put before every topic name, not before changelogs (they carry the app id)
    partitions              count, 1..1000, of the topics the app creates
    replication             count, 1..15, of the topics the app creates; 0: what the brokers have as their
                            default.replication.factor
    gateway_url             base URL of the simulated gateway, without a slash at its end; None: payments to
                            `simulated` are refused as not configured
    default_gateway         gateway of a payment that names none (see `routing`); a worker refuses one that is
                            not set up, a process that only takes payments in need not hold its keys
    commit_interval_ms      milliseconds, 1..10000: how long finished work may wait for its commit under load
    commit_distance_ms      milliseconds, 0..10000: least time between two commits of a task
    max_in_flight           handlers, 1..100000, running at once per worker
    max_connections         connections, 1..100000, to a worker's web port; at most half of the limit of
                            descriptors that the process has
    max_waiting_per_user    payments of one user, 1..100000, that may wait for their outcome before `POST
                            /payments` takes no other of theirs
    session_timeout_s       seconds, 1..1800: consumer session time-out (Kafka's own bounds are the broker's
                            group.min.session.timeout.ms, group.max.session.timeout.ms)
    gateway_deadline_s      seconds, 0.1..600, fractions allowed: all tries, waits and parsing for one event;
                            below session_timeout_s, or a slow gateway would cost the worker its partitions
    give_up_after_s         seconds, 1..2592000 (30 days, below the dedup retention of 35): how long a
                            proven-unsent payment is tried
    dunning_days            days, 1..60, rising, separated by commas: when after a soft decline a renewal is
                            tried again; empty: never
    authentication_days     days, 1..30: how long an intent waits for its customer before it is canceled
    match_window_s          seconds, 1..86400: how far our books and a gateway's list may lie apart
    settlement_days         business days, 1..30, from a charge to its line in a settlement file
    stripe_api_key          secret: Stripe's; None: payments to `stripe` are refused as not configured
    stripe_account          acct_... that the key must belong to; None: asked for at start
    stripe_url              base URL of Stripe's API, without a slash at its end
    stripe_webhook_secrets  secret: the signing secrets of our webhook endpoint, separated by `;` (in the file
                            one per line, too); several while one replaces another; None: no webhooks
    paypal_client_id        of the REST app; None: payments to `paypal` are refused as not configured
    paypal_client_secret    secret, together with paypal_client_id
    paypal_url              base URL of PayPal's REST API, without a slash at its end
    paypal_webhook_id       of the webhook made for that app; None: no webhooks
    api_token               bearer token for everything that writes; None: only loopback may write
    kafka_security_protocol PLAINTEXT, SSL, SASL_PLAINTEXT, SASL_SSL
    kafka_ca_file           path of a PEM file; None: the system's certificates
    kafka_cert_file         path of a PEM file: the client's certificate; together with kafka_key_file
    kafka_key_file          path of a PEM file: the client's private key
    kafka_sasl_mechanism    PLAIN, SCRAM-SHA-256, SCRAM-SHA-512; the SASL protocols need this and the next two
    kafka_sasl_username     user name
    kafka_sasl_password     secret; never in repr() or a message
    log_format              text, json: how a worker and the simulated gateway write their log

    The variable of a field is BILLING_ + its name in capitals; a secret may come from a file named by the
    same variable + _FILE. An empty value counts as unset where a field is optional.
    """

    app_id: str = "streamsocial-billing"
    broker: str = "kafka://127.0.0.1:9092"
    topic_prefix: str = ""
    partitions: int = 8
    replication: int = 0
    gateway_url: str | None = None
    default_gateway: str | None = None
    commit_interval_ms: int = 100
    commit_distance_ms: int = 0
    max_in_flight: int = 2000
    max_connections: int = 500
    max_waiting_per_user: int = 50
    session_timeout_s: int = 10
    gateway_deadline_s: float = 8.0
    give_up_after_s: int = 86_400
    dunning_days: str = "1,3,5,7"
    authentication_days: int = 3
    match_window_s: int = 900
    settlement_days: int = 2
    stripe_api_key: str | None = field(default=None, repr=False)
    stripe_account: str | None = None
    stripe_url: str = "https://api.stripe.com"
    stripe_webhook_secrets: str | None = field(default=None, repr=False)
    paypal_client_id: str | None = None
    paypal_client_secret: str | None = field(default=None, repr=False)
    paypal_url: str = "https://api-m.paypal.com"
    paypal_webhook_id: str | None = None
    api_token: str | None = field(default=None, repr=False)
    kafka_security_protocol: str = "PLAINTEXT"
    kafka_ca_file: str | None = None
    kafka_cert_file: str | None = None
    kafka_key_file: str | None = None
    kafka_sasl_mechanism: str | None = None
    kafka_sasl_username: str | None = None
    kafka_sasl_password: str | None = field(default=None, repr=False)
    log_format: str = "text"

    def __post_init__(self) -> None:
        """Refuse values that are fine alone but not together; raises SettingsError."""
        if self.gateway_deadline_s >= self.session_timeout_s:
            raise SettingsError(
                f"BILLING_GATEWAY_DEADLINE_S={self.gateway_deadline_s:g} is not below "
                f"BILLING_SESSION_TIMEOUT_S={self.session_timeout_s}: lower the first or raise the second"
            )
        _check_tls(self)
        _check_sasl(self)
        _check_webhooks(self)
        if (self.paypal_client_id is None) != (self.paypal_client_secret is None):
            raise SettingsError(
                "BILLING_PAYPAL_CLIENT_ID goes with BILLING_PAYPAL_CLIENT_SECRET: set both or neither"
            )

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> Settings:
        """Read every BILLING_ variable of `environ`; raises SettingsError for an unknown or bad one."""
        _refuse_unknown(environ)
        chosen: dict[str, Any] = {}
        for name, read in _READERS.items():
            variable = PREFIX + name.upper()
            value: object = None
            if name in _SECRETS:
                value = _read_secret(environ, variable, several=name in _SEVERAL)
            elif variable in environ:
                value = read(variable, environ[variable])
            if value is not None:
                chosen[name] = value
        return cls(**chosen)

    @property
    def bootstrap(self) -> str:
        """The brokers as librdkafka wants them: `host:port,host:port`."""
        return ",".join(url.removeprefix("kafka://") for url in self.broker_urls)

    @property
    def broker_urls(self) -> list[str]:
        """The brokers one by one, each as `kafka://host:port`."""
        return _broker_urls("BILLING_BROKER", self.broker)

    @property
    def webhook_secrets(self) -> tuple[str, ...]:
        """Stripe's signing secrets one by one."""
        return tuple(one for one in (self.stripe_webhook_secrets or "").split(";") if one)

    @property
    def calls_at_once(self) -> int:
        """Most calls to one gateway at once: one that hangs leaves handlers for everything else."""
        return max(1, self.max_in_flight // 2)

    @property
    def dunning_after_days(self) -> tuple[int, ...]:
        """The days of dunning one by one."""
        return tuple(int(day) for day in self.dunning_days.split(",") if day)

    @property
    def authentication_ms(self) -> int:
        """The same in milliseconds."""
        return self.authentication_days * 86_400_000

    @property
    def simulator_url(self) -> str:
        """Base URL of the simulated gateway, for who cannot do without; raises SettingsError."""
        if self.gateway_url is None:
            raise SettingsError("BILLING_GATEWAY_URL is not set: this needs the simulated gateway")
        return self.gateway_url

    def topic(self, name: str) -> str:
        """The full name of one of this module's topics."""
        return self.topic_prefix + name

    def changelog(self, table: str) -> str:
        """The full name of a table's changelog, as Faust names it."""
        return f"{self.app_id}-{table}-changelog"

    def client_config(self) -> dict[str, Any]:
        """The part of a confluent-kafka configuration that says how to reach the brokers."""
        config: dict[str, Any] = {"bootstrap.servers": self.bootstrap}
        if self.kafka_security_protocol == "PLAINTEXT":
            return config
        optional = {
            "ssl.ca.location": self.kafka_ca_file,
            "ssl.certificate.location": self.kafka_cert_file,
            "ssl.key.location": self.kafka_key_file,
            "sasl.mechanism": self.kafka_sasl_mechanism,
            "sasl.username": self.kafka_sasl_username,
            "sasl.password": self.kafka_sasl_password,
        }
        config["security.protocol"] = self.kafka_security_protocol
        return config | {key: value for key, value in optional.items() if value is not None}


def _check_webhooks(settings: Settings) -> None:
    for webhook, gateway in (
        ("stripe_webhook_secrets", "stripe_api_key"), ("paypal_webhook_id", "paypal_client_id"),
    ):  # fmt: skip
        if getattr(settings, webhook) is not None and getattr(settings, gateway) is None:
            raise SettingsError(
                f"{PREFIX}{webhook.upper()} is set, {PREFIX}{gateway.upper()} is not: "
                "a webhook may be about a charge that has to be asked for; set both or neither"
            )
    if settings.stripe_webhook_secrets is not None and not settings.webhook_secrets:
        raise SettingsError("BILLING_STRIPE_WEBHOOK_SECRETS holds no secret: use whsec_..., `;` between two")


def _check_tls(settings: Settings) -> None:
    files = ("kafka_ca_file", "kafka_cert_file", "kafka_key_file")
    given = [PREFIX + name.upper() for name in files if getattr(settings, name) is not None]
    if given and settings.kafka_security_protocol not in ("SSL", "SASL_SSL"):
        raise SettingsError(
            f"{given[0]} is set, but BILLING_KAFKA_SECURITY_PROTOCOL={settings.kafka_security_protocol} "
            "does not encrypt: use SSL or SASL_SSL"
        )
    if (settings.kafka_cert_file is None) != (settings.kafka_key_file is None):
        raise SettingsError("BILLING_KAFKA_CERT_FILE goes with BILLING_KAFKA_KEY_FILE: set both or neither")


def _check_sasl(settings: Settings) -> None:
    names = ("kafka_sasl_mechanism", "kafka_sasl_username", "kafka_sasl_password")
    wanted = settings.kafka_security_protocol.startswith("SASL_")
    for name in names:
        if (getattr(settings, name) is not None) != wanted:
            raise SettingsError(
                f"{PREFIX}{name.upper()} is {'not set' if wanted else 'set'}, but "
                f"BILLING_KAFKA_SECURITY_PROTOCOL={settings.kafka_security_protocol} "
                f"{'needs it' if wanted else 'does not use it: use SASL_SSL or SASL_PLAINTEXT'}"
            )


def _refuse_unknown(environ: Mapping[str, str]) -> None:
    known = [PREFIX + name.upper() for name in _READERS]
    known += [f"{PREFIX}{name.upper()}_FILE" for name in _SECRETS]
    for variable in sorted(environ):
        if variable.startswith(PREFIX) and variable not in known:
            near = difflib.get_close_matches(variable, known, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(sorted(known))}"
            raise SettingsError(f"{variable} is not a setting of this app: {hint}")


def _bad(variable: str, value: str, allowed: str) -> SettingsError:
    return SettingsError(f"{variable}={value!r} is not allowed: use {allowed}")


def _without_password(value: str) -> str:
    return "(hidden: it carries a password)" if "@" in value else value


def _whole(low: int, high: int) -> Callable[[str, str], int]:
    def read(variable: str, value: str) -> int:
        # int() alone would also take "1_000", " 5 " or Arabic digits
        if not _DIGITS.fullmatch(value) or not low <= int(value) <= high:
            raise _bad(variable, value, f"a whole number from {low} to {high}")
        return int(value)

    return read


def _seconds(low: float, high: float) -> Callable[[str, str], float]:
    def read(variable: str, value: str) -> float:
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        if not low <= number <= high:  # also refuses NaN
            raise _bad(variable, value, f"seconds from {low:g} to {high:g}")
        return number

    return read


def _one_of(*allowed: str) -> Callable[[str, str], str | None]:
    def read(variable: str, value: str) -> str | None:
        if value and value not in allowed:
            raise _bad(variable, value, f"one of {', '.join(allowed)}")
        return value or None

    return read


def _app_id(variable: str, value: str) -> str:
    if not value or not _TOPIC_PART.fullmatch(value):
        raise _bad(variable, value, "1 to 180 characters of A-Z a-z 0-9 . _ -")
    return value


def _topic_prefix(variable: str, value: str) -> str:
    if not _TOPIC_PART.fullmatch(value):
        raise _bad(variable, value, "at most 180 characters of A-Z a-z 0-9 . _ -")
    return value


def _broker_urls(variable: str, value: str) -> list[str]:
    urls = []
    for one in value.split(";"):
        match = _HOST_PORT.fullmatch(one.strip().removeprefix("kafka://"))
        port = int(match["port"] or DEFAULT_KAFKA_PORT) if match else 0
        if match is None or not 1 <= port <= 65_535:
            raise _bad(variable, _without_password(value), "kafka://host:port, several separated by ';'")
        urls.append(f"kafka://{match['host']}:{port}")
    return urls


def _broker(variable: str, value: str) -> str:
    return ";".join(_broker_urls(variable, value))


def _days(variable: str, value: str) -> str:
    days = [int(day) if _DIGITS.fullmatch(day) else 0 for day in value.split(",") if value]
    if len(days) > MAX_DUNNING or not all(1 <= day <= 60 for day in days) or days != sorted(set(days)):
        raise _bad(variable, value, "up to 20 rising whole numbers from 1 to 60, separated by commas")
    return value


def _url(variable: str, value: str) -> str:
    try:
        parts = urlsplit(value)
        fine = bool(parts.scheme in ("http", "https") and parts.hostname and parts.port != 0)
        fine = fine and not parts.query and not parts.fragment and "@" not in parts.netloc
    except ValueError:  # a port that is no number, a broken IPv6 address
        fine = False
    if not fine or not _VISIBLE.fullmatch(value):
        shown = _without_password(value)
        raise _bad(variable, shown, "http://host:port or https://host:port, without user, query or fragment")
    return value.rstrip("/")


def _optional_url(variable: str, value: str) -> str | None:
    return _url(variable, value) if value else None


def _file(variable: str, value: str) -> str | None:
    if value and not os.access(value, os.R_OK):
        raise _bad(variable, value, "the path of a readable file")
    return value or None


def _optional(variable: str, value: str) -> str | None:
    return value or None


def _webhook_id(variable: str, value: str) -> str | None:
    if value and not _WEBHOOK_ID.fullmatch(value):
        raise _bad(variable, value, "1 to 50 characters of A-Z a-z 0-9")
    return value or None


def _read_secret(environ: Mapping[str, str], variable: str, *, several: bool = False) -> str | None:
    """The secret itself or the content of its file without the line end; no message ever quotes it.

    `several`: the lines of the file are joined by `;`.
    """
    value, path = environ.get(variable) or None, environ.get(variable + "_FILE") or None
    if value is not None and path is not None:
        raise SettingsError(f"{variable} and {variable}_FILE are both set: keep one")
    source = variable
    if path is not None:
        source = f"{variable}_FILE={path!r}"
        value = _secret_file(source, path)
        value = ";".join(value.split()) if several else value
    if value is not None and not _VISIBLE.fullmatch(value):
        raise SettingsError(f"{source} is empty or holds blanks or non-ASCII: use visible ASCII only")
    return value


def _secret_file(source: str, path: str) -> str:
    try:
        with open(path, encoding="utf-8") as file:
            return file.read(MAX_SECRET_FILE_BYTES).rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "not UTF-8"
        raise SettingsError(f"{source} cannot be read ({why}): use a readable text file") from None


_SECRETS: Final = (
    "api_token", "stripe_api_key", "stripe_webhook_secrets", "paypal_client_secret", "kafka_sasl_password",
)  # fmt: skip
_SEVERAL: Final = frozenset({"stripe_webhook_secrets"})
_READERS: Final[dict[str, Callable[[str, str], object]]] = {
    "app_id": _app_id,
    "broker": _broker,
    "topic_prefix": _topic_prefix,
    "partitions": _whole(1, 1000),
    "replication": _whole(1, 15),
    "gateway_url": _optional_url,
    "default_gateway": _one_of(*GATEWAYS),
    "commit_interval_ms": _whole(1, 10_000),
    "commit_distance_ms": _whole(0, 10_000),
    "max_in_flight": _whole(1, 100_000),
    "max_connections": _whole(1, 100_000),
    "max_waiting_per_user": _whole(1, 100_000),
    "session_timeout_s": _whole(1, 1800),
    "gateway_deadline_s": _seconds(0.1, 600),
    "give_up_after_s": _whole(1, 2_592_000),
    "dunning_days": _days,
    "authentication_days": _whole(1, 30),
    "match_window_s": _whole(1, 86_400),
    "settlement_days": _whole(1, 30),
    "stripe_api_key": _optional,
    "stripe_account": _optional,
    "stripe_url": _url,
    "stripe_webhook_secrets": _optional,
    "paypal_client_id": _optional,
    "paypal_client_secret": _optional,
    "paypal_url": _url,
    "paypal_webhook_id": _webhook_id,
    "api_token": _optional,
    "kafka_security_protocol": _one_of(*PROTOCOLS),
    "kafka_ca_file": _file,
    "kafka_cert_file": _file,
    "kafka_key_file": _file,
    "kafka_sasl_mechanism": _one_of(*MECHANISMS),
    "kafka_sasl_username": _optional,
    "kafka_sasl_password": _optional,
    "log_format": _one_of("text", "json"),
}
if set(_READERS) != {one.name for one in fields(Settings)}:  # a field without a reader could never be set
    raise TypeError("every field of Settings needs a reader")
