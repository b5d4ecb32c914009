"""Many questions in one go: lines of a file, their runs, scores, and a report."""
