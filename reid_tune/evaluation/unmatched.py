"""Queries without a match in the gallery."""

from collections import defaultdict
from collections.abc import Iterable

__all__ = ["describe_unmatched_queries"]

_NAMED = 5


def describe_unmatched_queries(queries: Iterable[tuple[int, int]], gallery: Iterable[tuple[int, int]]) -> str | None:
    """Describe the queries that have no gallery image of their identity under another camera.

    Args:
        queries: Identity and camera of each query.
        gallery: Identity and camera of each gallery image; identity -1 is junk.

    Returns:
        One line with their number and identities: those that the gallery lacks, and those that it has only under the
        query's own camera. None if every query has a match.
    """
    queries, cameras = list(queries), defaultdict(set)
    for identity, camera in gallery:
        if identity != -1:
            cameras[identity].add(camera)
    absent = [identity for identity, _ in queries if not cameras[identity]]
    same_camera_only = [identity for identity, camera in queries if cameras[identity] == {camera}]
    if not absent + same_camera_only:
        return None
    by_kind = {"absent from it": absent, "there only under the query's own camera": same_camera_only}
    kinds = [f"identities {kind}: {_first_few(identities)}" for kind, identities in by_kind.items() if identities]
    count = len(absent) + len(same_camera_only)
    return (
        f"{count:,} of {len(queries):,} queries have no match in the gallery and count in no metric; {'; '.join(kinds)}"
    )


def _first_few(identities: Iterable[int]) -> str:
    different = sorted(set(identities))
    more = f" and {len(different) - _NAMED} more" if len(different) > _NAMED else ""
    return ", ".join(map(str, different[:_NAMED])) + more
