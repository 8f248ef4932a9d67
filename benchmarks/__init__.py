"""Benchmarks of the whole worker on a real Kafka; `make bench` runs them."""
