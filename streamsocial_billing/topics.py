"""The creation of topics, by the path that programs outside this repository import."""

from streamsocial_billing.kafka.topics import create_topics

__all__ = ["create_topics"]
