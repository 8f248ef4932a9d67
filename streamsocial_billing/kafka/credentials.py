"""How Faust's own clients get into a secured Kafka."""

import ssl
from typing import Any

import faust

from streamsocial_billing.settings import Settings, SettingsError


def kafka_credentials(settings: Settings) -> dict[str, Any]:
    """TLS with SASL for the aiokafka side, from the same paths that librdkafka gets.

    Raises:
        SettingsError: if a PEM file cannot be used.
    """
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
