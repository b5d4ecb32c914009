"""Contexts: where texts come from, and how they are found again."""
