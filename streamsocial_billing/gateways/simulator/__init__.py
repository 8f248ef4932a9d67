"""The simulated payment gateway: a Stripe-shaped server with a durable ledger."""
