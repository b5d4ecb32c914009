"""What the server and the command line share: contexts, runs and REPLs over one store."""
