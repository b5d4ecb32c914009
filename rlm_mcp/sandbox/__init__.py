"""The REPL: where model-written code runs."""
