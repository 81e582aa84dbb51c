"""Timeout of communication between the workers of a run.

Imports nothing heavy: processes that only supervise a run import this module too.
"""

from datetime import timedelta

__all__ = ["GROUP_TIMEOUT"]

# The longest waits are those of other workers while rank 0 decodes or validates.
GROUP_TIMEOUT = timedelta(hours=2)
