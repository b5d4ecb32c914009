"""Citations: what an answer cites or quotes, checked against the text."""
