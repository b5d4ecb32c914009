"""The walls around a child: limits, namespaces, Landlock, seccomp."""
