"""Use cases: joins store, engine and sandbox; one function for each thing a user can do."""
