"""The Ray cluster on which a sweep runs: a local one on this machine, or one with several nodes."""
