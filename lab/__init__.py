"""The lab: the same payments and the same faults under five delivery guarantees, on a real Kafka."""
