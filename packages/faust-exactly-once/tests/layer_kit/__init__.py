"""Test doubles of what is around the layer: Kafka in memory, scripted clients, virtual time."""
