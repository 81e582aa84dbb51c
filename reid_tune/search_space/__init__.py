"""Search-space files: schema, ranges, conditions and constraints."""
