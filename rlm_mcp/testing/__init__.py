"""A scripted model behind a real HTTP endpoint, for the demo and for tests."""
