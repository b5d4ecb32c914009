"""The host's side of the sandbox. Trusted; it believes nothing that a child says."""
