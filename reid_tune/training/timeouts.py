"""How long the workers of a run wait for each other.

Imports nothing heavy: processes that only supervise a run import this module too.
"""

from datetime import timedelta

__all__ = ["GROUP_TIMEOUT"]

# For example while rank 0 decodes and validates.
GROUP_TIMEOUT = timedelta(hours=2)
