"""Meaning of identity numbers: junk, distractors and persons, and which query has a match.

Every part asks these functions: checks of data, splits, scores, thresholds and pictures.

| identity | kind | training, validation split | query | gallery |
|---|---|---|---|---|
| below 0 | junk, a bad detection | left out | matches nothing | removed before scoring |
| 0 | distractor, a person who is not told apart | left out | scored as one identity | stays |
| above 0 | a person, vehicle or animal | used | scored | stays |

A gallery image of identity 0 matches a query only if that query has identity 0 as well, which published galleries do
not have. Such queries are scored as the code of the literature scores them, and `check-data` names them. Thresholds
count pairs of two such images neither way, because these may show one person or two.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any, Literal, overload

__all__ = ["DISTRACTOR", "JUNK", "Kind", "is_distractor", "is_junk", "is_person", "kind_of", "unmatched_queries"]

Kind = Literal["junk", "distractor", "person"]
JUNK, DISTRACTOR = -1, 0  # as they are written; any negative number is read as junk


@overload
def is_junk(identity: int) -> bool: ...
@overload
def is_junk(identity: Any) -> Any: ...
def is_junk(identity: Any) -> Any:
    """Whether an identity, or each one of an array or tensor, marks junk."""
    return identity < DISTRACTOR


@overload
def is_distractor(identity: int) -> bool: ...
@overload
def is_distractor(identity: Any) -> Any: ...
def is_distractor(identity: Any) -> Any:
    """Whether an identity, or each one of an array or tensor, marks a distractor."""
    return identity == DISTRACTOR


@overload
def is_person(identity: int) -> bool: ...
@overload
def is_person(identity: Any) -> Any: ...
def is_person(identity: Any) -> Any:
    """Whether an identity, or each one of an array or tensor, is neither junk nor a distractor."""
    return identity > DISTRACTOR


def kind_of(identity: int) -> Kind:
    """Return the kind of an identity."""
    return "junk" if is_junk(identity) else "distractor" if is_distractor(identity) else "person"


def unmatched_queries(
    queries: Sequence[tuple[int, int]], gallery: Iterable[tuple[int, int]]
) -> tuple[list[int], list[int]]:
    """Return the queries without a match, an image of their identity under another camera.

    Args:
        queries: Identity and camera of each query.
        gallery: Identity and camera of each gallery image; junk matches nothing.

    Returns:
        Indices of the queries whose identity the gallery lacks, and of those whose identity it has only under the
        query's own camera.
    """
    cameras: defaultdict[int, set[int]] = defaultdict(set)
    for identity, camera in gallery:
        if not is_junk(identity):
            cameras[identity].add(camera)
    absent = [index for index, (identity, _) in enumerate(queries) if not cameras[identity]]
    same_camera = [index for index, (identity, camera) in enumerate(queries) if cameras[identity] == {camera}]
    return absent, same_camera
