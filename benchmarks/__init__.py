"""Benchmarks of the whole worker on a real Kafka: beside its peers (`make bench`), and alone."""
