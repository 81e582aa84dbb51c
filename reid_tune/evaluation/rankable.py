"""Check of identities and cameras that leave nothing to rank."""

import numpy as np

from reid_tune.errors import InputError
from reid_tune.identities import is_junk

__all__ = ["explain_no_match", "require_rankable"]


def require_rankable(
    query_ids: np.ndarray, query_cameras: np.ndarray, gallery_ids: np.ndarray, gallery_cameras: np.ndarray
) -> None:
    """Check that identities and cameras leave something to rank.

    Args:
        query_ids: Identities of the queries, int64 [q].
        query_cameras: Cameras of the queries, int64 [q].
        gallery_ids: Identities of the gallery, int64 [g].
        gallery_cameras: Cameras of the gallery, int64 [g].

    Raises:
        InputError: no gallery image is left without junk, no query has a match, or no query could have a wrong image.
    """
    kept = ~is_junk(gallery_ids)
    gallery_ids, gallery_cameras = gallery_ids[kept], gallery_cameras[kept]
    if not len(gallery_ids):
        raise InputError("every gallery image is junk (identity -1); give a gallery with identities.")
    if problem := explain_no_match(query_ids, query_cameras, gallery_ids, gallery_cameras):
        raise InputError(problem)
    if len(identities := np.unique(gallery_ids)) == 1:
        raise InputError(
            f"every gallery image without junk has identity {identities[0]}, so that any embedding scores 100 %: add "
            "gallery images of other identities, or hold out more of them with a larger dataset.validation_fraction."
        )


def explain_no_match(
    query_ids: np.ndarray, query_cameras: np.ndarray, gallery_ids: np.ndarray, gallery_cameras: np.ndarray
) -> str | None:
    """Return why no query has a match, and what to do; None if one has.

    Args:
        query_ids: Identities of the queries, int64 [q].
        query_cameras: Cameras of the queries, int64 [q].
        gallery_ids: Identities of the gallery without junk, int64 [g], at least one.
        gallery_cameras: Cameras of the gallery, int64 [g].
    """
    identities, position = np.unique(gallery_ids, return_inverse=True)
    first_camera = np.full(len(identities), gallery_cameras.max())
    last_camera = np.full(len(identities), gallery_cameras.min())
    np.minimum.at(first_camera, position, gallery_cameras)
    np.maximum.at(last_camera, position, gallery_cameras)
    index = np.searchsorted(identities, query_ids).clip(max=len(identities) - 1)
    is_present = identities[index] == query_ids
    has_match = is_present & ((first_camera[index] != query_cameras) | (last_camera[index] != query_cameras))
    if has_match.any():
        return None
    reason = _why_unmatched(is_present, np.union1d(query_cameras, gallery_cameras))
    return f"no query has a match (its identity under another camera) in the gallery: {reason}."


def _why_unmatched(is_present: np.ndarray, cameras: np.ndarray) -> str:
    if len(cameras) == 1:
        return (
            f"all images have camera {cameras[0]}; number the cameras, or, if they are unknown, give the queries "
            "another camera than the gallery"
        )
    if not is_present.any():
        return "the gallery has none of the queries' identities; check that the two sets belong together"
    return (
        f"it lacks the identities of {int((~is_present).sum()):,} of the {len(is_present):,} queries, and has the "
        "others only under the query's own camera; check the two sets"
    )
