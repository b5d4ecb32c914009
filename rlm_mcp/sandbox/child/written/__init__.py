"""Code as models write it for other environments: what it expects is put in place."""
