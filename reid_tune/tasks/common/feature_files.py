"""Feature files of the commands that score embeddings of any model, and the warnings about them."""

import sys
from collections.abc import Iterable

__all__ = ["print_warnings"]


def print_warnings(lines: Iterable[str], subject: str = "") -> None:
    """Print sentences about doubtful scores on stderr.

    Args:
        lines: The sentences.
        subject: Name of what they are about; empty where there is only one.
    """
    for line in lines:
        print(f"warning: {f'{subject}: ' if subject else ''}{line}", file=sys.stderr)
