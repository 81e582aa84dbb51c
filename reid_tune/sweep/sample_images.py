"""Samples of a data set's images that are just large enough for every stage of a sweep."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from reid_tune.data.records import ImageFolder, ImageRecord, training_records
from reid_tune.data.splits import split_by_identity
from reid_tune.identities import is_person

__all__ = ["link_images", "sample_test_images", "sample_training_images"]

_HELD_OUT = 2  # identities with queries in each validation split
_QUERIES, _MATCHES, _GALLERY = 4, 4, 32  # images; matches are per query


def sample_training_images(
    folders: Sequence[ImageFolder], *, seeds: Iterable[int], fraction: float, identities: int, images: int
) -> list[list[ImageRecord]]:
    """Return images of each training folder, from several cameras for each identity if it has several.

    The validation split of each seed leaves `identities` identities for training and holds out two that have queries,
    as far as the folders have so many.

    Args:
        folders: Folders from `read_training_folders`.
        seeds: Values of `dataset.validation_seed` of the validation splits.
        fraction: Value of `dataset.validation_fraction`.
        identities: Number of identities for training.
        images: Maximum number of images of an identity; 2 or more.

    Raises:
        InputError: the whole folders cannot be split.
    """
    records = training_records(*folders)
    samples = {identity: _spread_over_cameras(group, images) for identity, group in _by_identity(records).items()}
    chosen = dict.fromkeys(record.identity for record in _anchors(folders) if is_person(record.identity))
    splits = [split_by_identity(records, seed=seed, fraction=fraction) for seed in seeds]
    held_out = [{record.identity for record in split.query + split.gallery} for split in splits]
    for split in splits:
        chosen |= dict.fromkeys(list(dict.fromkeys(record.identity for record in split.query))[:_HELD_OUT])
    never_held_out = [identity for identity in samples if not any(identity in held for held in held_out)]
    for held in held_out:
        for identity in [*never_held_out, *samples]:
            if len(chosen.keys() - held) >= identities:
                break
            if identity not in held:
                chosen[identity] = None
    sampled = {record for identity in chosen for record in samples[identity]} | set(_anchors(folders))
    return [[record for record in folder.records if record in sampled] for folder in folders]


def _anchors(folders: Sequence[ImageFolder]) -> list[ImageRecord]:
    """Return the images with the largest identity and camera of each folder.

    The numbers of the later folders follow them: without these images, other identities would be held out.
    """
    ends = [max(folder.records, key=lambda record: record.identity) for folder in folders]
    return ends + [max(folder.records, key=lambda record: record.camera) for folder in folders]


def sample_test_images(query: ImageFolder, gallery: ImageFolder) -> tuple[list[ImageRecord], list[ImageRecord]]:
    """Return queries of different identities, and gallery images: the matches first, then others."""
    gallery_images = _by_identity(record for record in gallery.records if is_person(record.identity))
    with_match = []
    for identity, records in _by_identity(query.records).items():
        if identity in gallery_images:
            with_match += [record for record in records if _matches(record, gallery_images[identity])][:1]
    queries = with_match[:_QUERIES] or list(query.records[:_QUERIES])
    matches = [
        match for record in queries for match in _matches(record, gallery_images.get(record.identity, []))[:_MATCHES]
    ]
    others = [record for record in gallery.records if record not in matches]
    return queries, matches + others[: _GALLERY - len(matches)]


def link_images(records: Iterable[ImageRecord], folder: Path) -> Path:
    """Make a folder with links to the images, and return it."""
    folder.mkdir(parents=True)
    for record in records:
        (folder / record.path.name).symlink_to(record.path.resolve())
    return folder


def _matches(query: ImageRecord, gallery: Sequence[ImageRecord]) -> list[ImageRecord]:
    return [record for record in gallery if record.camera != query.camera]


def _by_identity(records: Iterable[ImageRecord]) -> defaultdict[int, list[ImageRecord]]:
    groups: defaultdict[int, list[ImageRecord]] = defaultdict(list)
    for record in records:
        groups[record.identity].append(record)
    return groups


def _spread_over_cameras(records: Sequence[ImageRecord], count: int) -> list[ImageRecord]:
    """Return `count` images: the first one of each camera, then the second ones, and so on."""
    seen: Counter[int] = Counter()
    ranked = []
    for record in records:
        seen[record.camera] += 1
        ranked.append((seen[record.camera], record))
    return [record for _, record in sorted(ranked, key=lambda pair: pair[0])[:count]]
