"""Whole workers on a simulated Kafka, disk, network, clock: tier 1 of the tests under fire."""
