"""Ranked search over stored texts: an index file of its own for each text, beside the database."""
