"""The stages of a sweep, each in one file."""
