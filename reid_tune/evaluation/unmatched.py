"""Queries without a match in the gallery, and queries with the identity of distractors."""

from collections.abc import Iterable

from reid_tune.identities import is_distractor, unmatched_queries

__all__ = ["describe_distractor_queries", "describe_unmatched_queries"]

_NAMED = 5


def describe_unmatched_queries(queries: Iterable[tuple[int, int]], gallery: Iterable[tuple[int, int]]) -> str | None:
    """Describe the queries that have no gallery image of their identity under another camera.

    Args:
        queries: Identity and camera of each query.
        gallery: Identity and camera of each gallery image; junk matches nothing.

    Returns:
        One line with their number and identities: those that the gallery lacks, and those that it has only under the
        query's own camera. None if every query has a match.
    """
    queries = list(queries)
    absent, same_camera_only = (
        [queries[index][0] for index in indices] for indices in unmatched_queries(queries, gallery)
    )
    if not absent + same_camera_only:
        return None
    by_kind = {"absent from it": absent, "there only under the query's own camera": same_camera_only}
    kinds = [f"identities {kind}: {_first_few(identities)}" for kind, identities in by_kind.items() if identities]
    count = len(absent) + len(same_camera_only)
    return (
        f"{count:,} of {len(queries):,} queries have no match in the gallery and count in no metric; {'; '.join(kinds)}"
    )


def describe_distractor_queries(identities: Iterable[int]) -> str | None:
    """Describe the queries of identity 0, None if there are none.

    Args:
        identities: Identity of each query.
    """
    count = sum(is_distractor(identity) for identity in identities)
    if not count:
        return None
    return (
        f"{count:,} {'query has' if count == 1 else 'queries have'} identity 0, which marks distractors, and "
        f"{'is' if count == 1 else 'are'} scored as images of one identity: number identities from 1"
    )


def _first_few(identities: Iterable[int]) -> str:
    different = sorted(set(identities))
    more = f" and {len(different) - _NAMED} more" if len(different) > _NAMED else ""
    return ", ".join(map(str, different[:_NAMED])) + more
