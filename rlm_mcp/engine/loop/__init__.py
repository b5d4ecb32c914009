"""The loop of a run: ask the root model, run its code, judge the turn, until there is an answer."""
