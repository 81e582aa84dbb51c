"""Queries that have nothing to be found in the gallery."""

from collections import defaultdict
from collections.abc import Iterable

__all__ = ["describe_unmatched_queries"]

_NAMED = 5


def describe_unmatched_queries(queries: Iterable[tuple[int, int]], gallery: Iterable[tuple[int, int]]) -> str | None:
    """Say which queries have no gallery image of their identity under another camera, if there are any.

    Args:
        queries: The identity and camera of each.
        gallery: The same; identity -1 is junk.

    Returns:
        One line with their number and identities: those that the gallery lacks, and those that it has under the
        query's own camera alone.
    """
    queries, cameras = list(queries), defaultdict(set)
    for identity, camera in gallery:
        if identity != -1:
            cameras[identity].add(camera)
    absent = [identity for identity, _ in queries if not cameras[identity]]
    own = [identity for identity, camera in queries if cameras[identity] == {camera}]
    if not absent + own:
        return None
    kinds = (("absent from it", absent), ("there only under the query's own camera", own))
    named = [f"identities {kind}: {_some(identities)}" for kind, identities in kinds if identities]
    return (
        f"{len(absent + own):,} of {len(queries):,} queries have no match in the gallery and count in no metric; "
        f"{'; '.join(named)}"
    )


def _some(identities: Iterable[int]) -> str:
    different = sorted(set(identities))
    more = f" and {len(different) - _NAMED} more" if len(different) > _NAMED else ""
    return ", ".join(map(str, different[:_NAMED])) + more
