"""The records on the topics, by the path that programs outside this repository import."""

from streamsocial_billing.domain.events import PaymentEvent

__all__ = ["PaymentEvent"]
