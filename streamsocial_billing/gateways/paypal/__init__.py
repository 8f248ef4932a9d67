"""PayPal: client, search, webhooks, settlement files."""
