"""A new client for one question to brokers that come and go."""

from __future__ import annotations

from confluent_kafka.admin import AdminClient


def fresh_client(bootstrap: str) -> AdminClient:
    """A client that knows nothing yet: it asks the addresses that it is given, and no broker of before.

    It says nothing on stderr, and looks again at once for a broker that is about to start.
    """
    wish = {"reconnect.backoff.ms": 20, "reconnect.backoff.max.ms": 100, "log_level": 0}
    return AdminClient({"bootstrap.servers": bootstrap, **wish}, logger=None)
