"""Calls that model code makes: sub-calls, batches of them, and runs inside a run."""
