"""Stripe: client, shapes, webhooks, settlement files."""
