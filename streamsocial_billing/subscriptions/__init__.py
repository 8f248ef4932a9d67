"""Subscriptions: orders, periods, renewals."""
