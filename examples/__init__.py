"""Small applications on the exactly-once layer; each is run by a test on a real Kafka."""
