"""Images of a folder decoded once, in one file that all processes share."""
