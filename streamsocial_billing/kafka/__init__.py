"""The product's own clients of Kafka: readers, writers, topics, checks."""
