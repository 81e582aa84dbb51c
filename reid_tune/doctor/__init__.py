"""Checks of an installation and of what a file needs, and the archive for a bug report."""
