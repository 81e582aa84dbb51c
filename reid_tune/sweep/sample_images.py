"""A handful of a data set's images with which every stage of a sweep can work."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from reid_tune.data.records import ImageFolder, ImageRecord, training_records
from reid_tune.data.splits import split_by_identity

__all__ = ["link_images", "sample_test_images", "sample_training_images"]

HELD_OUT = 2  # identities of each hold-out that have queries
QUERIES, MATCHES, GALLERY = 4, 4, 32


def sample_training_images(
    folders: Sequence[ImageFolder], *, seeds: Iterable[int], fraction: float, identities: int, images: int
) -> list[list[ImageRecord]]:
    """Images of each training folder: at most some of an identity, of several cameras where there are several.

    The hold-out of each seed leaves the wanted identities for training, and holds two out that have queries, as far
    as the folders have so many.

    Args:
        folders: From `read_training_folders`.
        seeds: `dataset.validation_seed` of the hold-outs.
        fraction: `dataset.validation_fraction`.
        identities: Wanted for training.
        images: Of an identity, at most; 2 or more.

    Raises:
        InputError: a hold-out of the whole folders is impossible.
    """
    records = training_records(*folders)
    few = {identity: _few(own, images) for identity, own in _by_identity(records).items()}
    chosen = dict.fromkeys(record.identity for record in _anchors(folders) if record.identity > 0)
    splits = [split_by_identity(records, seed=seed, fraction=fraction) for seed in seeds]
    held = [{record.identity for record in split.query + split.gallery} for split in splits]
    for split in splits:
        chosen |= dict.fromkeys(list(dict.fromkeys(record.identity for record in split.query))[:HELD_OUT])
    never = [identity for identity in few if not any(identity in out for out in held)]
    for out in held:
        for identity in [*never, *few]:
            if len(chosen.keys() - out) >= identities:
                break
            if identity not in out:
                chosen[identity] = None
    wanted = {record for identity in chosen for record in few[identity]} | set(_anchors(folders))
    return [[record for record in folder.records if record in wanted] for folder in folders]


def _anchors(folders: Sequence[ImageFolder]) -> list[ImageRecord]:
    """Of each folder the images by which those behind it are numbered: without them others would be held out."""
    ends = [max(folder.records, key=lambda record: record.identity) for folder in folders]
    return ends + [max(folder.records, key=lambda record: record.camera) for folder in folders]


def sample_test_images(query: ImageFolder, gallery: ImageFolder) -> tuple[list[ImageRecord], list[ImageRecord]]:
    """A few queries of different identities, and gallery images: their matches first, then others."""
    theirs = _by_identity(record for record in gallery.records if record.identity > 0)
    found = {
        identity: next((own for own in queries if _matches(own, theirs[identity])), None)
        for identity, queries in _by_identity(query.records).items()
        if identity in theirs
    }
    queries = [record for record in found.values() if record][:QUERIES] or list(query.records[:QUERIES])
    matches = [match for own in queries for match in _matches(own, theirs.get(own.identity, []))[:MATCHES]]
    others = [record for record in gallery.records if record not in matches]
    return queries, matches + others[: GALLERY - len(matches)]


def link_images(records: Iterable[ImageRecord], folder: Path) -> Path:
    """A new folder with links to the images."""
    folder.mkdir(parents=True)
    for record in records:
        (folder / record.path.name).symlink_to(record.path.resolve())
    return folder


def _matches(query: ImageRecord, gallery: Sequence[ImageRecord]) -> list[ImageRecord]:
    return [record for record in gallery if record.camera != query.camera]


def _by_identity(records: Iterable[ImageRecord]) -> defaultdict[int, list[ImageRecord]]:
    found: defaultdict[int, list[ImageRecord]] = defaultdict(list)
    for record in records:
        found[record.identity].append(record)
    return found


def _few(records: Sequence[ImageRecord], count: int) -> list[ImageRecord]:
    """The first image of each camera, then the second ones, and so on."""
    seen: Counter[int] = Counter()
    ranked = []
    for record in records:
        seen[record.camera] += 1
        ranked.append((seen[record.camera], record))
    return [record for _, record in sorted(ranked, key=lambda pair: pair[0])[:count]]
