"""Audits the books: Kafka's results = the gateway's ledger = the tables."""
