"""Where runs are worked on: in this process."""
