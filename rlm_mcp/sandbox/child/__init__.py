"""The child's side of the sandbox, which shares its process with model code."""
