"""Models that are commands: how known programs are called, and what they print."""
