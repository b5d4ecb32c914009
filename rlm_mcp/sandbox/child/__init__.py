"""The child's side of the sandbox; it shares its process with model code."""
