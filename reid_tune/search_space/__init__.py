"""The language of search spaces."""
