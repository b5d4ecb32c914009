"""What a model's reply means: code, answers, reasoning. Pure functions over text."""
