"""The words that root models read: system messages, questions, feedback, nudges."""
