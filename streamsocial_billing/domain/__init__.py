"""Pure rules of payments: no Kafka, no Faust, no gateway."""
