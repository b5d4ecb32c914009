"""The one SQLite file: contexts, runs, events, variables."""
