"""Runs: how they start, work, wait in line, resume and end."""
