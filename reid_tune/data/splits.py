"""Hold-out identities for validation, chosen by hashes so that neither place nor neighbours of an image matter."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b

from reid_tune.data.records import ImageRecord
from reid_tune.errors import InputError

__all__ = ["Split", "split_by_identity"]


@dataclass(frozen=True, slots=True)
class Split:
    """Training records, and queries and gallery of the held-out identities, each in the order given."""

    train: tuple[ImageRecord, ...]
    query: tuple[ImageRecord, ...]
    gallery: tuple[ImageRecord, ...]

    @property
    def images(self) -> int:
        """Number of images in all parts."""
        return len(self.train) + len(self.query) + len(self.gallery)

    @property
    def held_out(self) -> int:
        """Number of held-out identities; below 100 the validation numbers are noisy."""
        return len({record.identity for record in self.query + self.gallery})


def split_by_identity(records: Sequence[ImageRecord], *, seed: int, fraction: float = 0.2) -> Split:
    """Hold the identities out whose hash with the seed, as a number in 0..1, is below the fraction.

    Per held-out identity and camera the image of the lowest hash becomes a query, unless a query would be left without
    a gallery image of another camera; all other images, and those of identities with one camera, are gallery.

    Args:
        records: training records (identities above 0).

    Raises:
        InputError: no query results, or no training identity remains.
    """
    held: defaultdict[int, list[ImageRecord]] = defaultdict(list)
    for record in records:
        if _uniform(f"{seed}:{record.identity}") < fraction:
            held[record.identity].append(record)
    train = tuple(record for record in records if record.identity not in held)
    queries = {record for images in held.values() for record in _queries(images, seed)}
    if len({record.camera for record in records}) < 2:
        raise InputError(
            "all training images are of one camera, and a query must be found in another one: a hold-out needs images "
            "of at least two cameras."
        )
    if not train or not queries:
        fault = "holds no identity with images of two cameras out" if train else "leaves no identity for training"
        raise InputError(
            f"the hold-out of {fraction:g} of the identities ({len(held)} held out) {fault}; set another "
            "dataset.validation_seed, or add identities."
        )
    query = tuple(record for record in records if record in queries)
    gallery = tuple(record for record in records if record.identity in held and record not in queries)
    return Split(train, query, gallery)


def _queries(images: Sequence[ImageRecord], seed: int) -> list[ImageRecord]:
    """The queries among the images of one identity."""
    first: dict[int, ImageRecord] = {}
    for record in sorted(images, key=lambda record: _uniform(f"{seed}:{record.path.name}")):
        first.setdefault(record.camera, record)
    queries = list(first.values())
    rest = Counter(record.camera for record in images)
    rest.subtract(first.keys())
    # If one query has all the rest in its own camera, the last query's image in the gallery is a match for the others.
    return queries[:-1] if rest.total() in (rest[camera] for camera in first) else queries


def _uniform(text: str) -> float:
    """A number in 0..1 that only the text decides."""
    return int.from_bytes(blake2b(text.encode(errors="surrogateescape"), digest_size=8).digest(), "big") / 2**64
