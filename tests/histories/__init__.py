"""Runs as released versions wrote them, which the code of today reads and resumes.

Each directory is named for a version and holds what that version wrote: one log a file, and one
small database. `record.py` makes such a directory. Whoever changes the format of the log or of
the database records a new one and leaves the old ones as they are.
"""
