"""The Docker sandbox: each REPL is a container of an image with Python, without a network."""
