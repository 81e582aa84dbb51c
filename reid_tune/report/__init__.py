"""What a sweep has found, for people and programs."""
