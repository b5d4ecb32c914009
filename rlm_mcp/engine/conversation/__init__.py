"""The root model's conversation: what it holds, how it fits the window, how it is restored."""
