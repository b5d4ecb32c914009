"""Stored texts: uploads, chunks, reading, forgetting."""
