"""What one experiment is: the schema, loading with interpolation and overrides, and what is wrong with it."""
