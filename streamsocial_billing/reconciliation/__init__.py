"""Reconciliation: our books, the gateways' lists and the settlement files, held against each other."""

from __future__ import annotations

from streamsocial_billing.gateways.errors import InputRefused
from streamsocial_billing.reconciliation.run import Done, Wish, reconcile

__all__ = ["Done", "InputRefused", "Wish", "reconcile"]
