"""One view of a run: its bundle, its lines, and files made of it."""
