"""The spec of an experiment: schema, defaults, loading with overrides, and checks."""
