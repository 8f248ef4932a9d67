"""Reconciliation: our books, the gateways' lists and the settlement files, held against each other."""
