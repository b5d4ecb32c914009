"""Stored runs: rows, events, variables, leases."""
