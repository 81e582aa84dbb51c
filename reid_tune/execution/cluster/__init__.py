"""The Ray cluster that a sweep runs on: of this machine alone, or one of several nodes."""
