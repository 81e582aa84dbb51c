"""Validation split by hashes of identities, so that neither the folder nor the other images matter."""

from collections import Counter, defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from hashlib import blake2b

from reid_tune.data.records import ImageRecord
from reid_tune.errors import InputError
from reid_tune.identities import is_person

__all__ = ["Split", "split_by_identity"]

# Where only some identities may be held out, at most this share of them is, so that splits of different seeds differ.
_MAX_SHARE = 0.5
# Fewer identities that may be held out make no validation split.
_MIN_UNSEEN = 10


@dataclass(frozen=True, slots=True)
class Split:
    """Training records, and queries and gallery of the validation, each in the given order."""

    train: tuple[ImageRecord, ...]
    query: tuple[ImageRecord, ...]
    gallery: tuple[ImageRecord, ...]

    @property
    def images(self) -> int:
        """Number of images in all parts."""
        return len(self.train) + len(self.query) + len(self.gallery)

    @property
    def held_out(self) -> int:
        """Number of held-out identities; with fewer than 100 the validation metrics are noisy."""
        return len({record.identity for record in self.query + self.gallery if is_person(record.identity)})


def split_by_identity(
    records: Sequence[ImageRecord], *, seed: int, fraction: float = 0.2, seen: Collection[int] = ()
) -> Split:
    """Hold out the identities whose hash with the seed, as a number in 0..1, is below the fraction.

    Per held-out identity and camera, the image with the lowest hash becomes a query, unless a query would be left
    without a gallery image of another camera. All other images are gallery, also those of identities with one camera.

    Args:
        records: Training records (identities above 0).
        seed: Seed of the hashes.
        fraction: Expected fraction of held-out identities.
        seen: Identities that are not held out. Of the others up to a half is, to reach the fraction of all.

    Raises:
        InputError: The query or the training identities would be empty, or nearly all identities are `seen`.
    """
    held: defaultdict[int, list[ImageRecord]] = defaultdict(list)
    share = _share_of_unseen({record.identity for record in records}, fraction, seen) if seen else fraction
    for record in records:
        if record.identity not in seen and _uniform(f"{seed}:{record.identity}") < share:
            held[record.identity].append(record)
    train = tuple(record for record in records if record.identity not in held)
    queries = {record for images in held.values() for record in _queries(images, seed)}
    if len({record.camera for record in records}) < 2:
        raise InputError(
            "all training images are of one camera, but a query needs a match of another one: a validation split needs "
            "images of at least two cameras."
        )
    if not train or not queries:
        problem = "has no identity with images of two cameras" if train else "leaves no identity for training"
        raise InputError(
            f"the validation split of {fraction:g} of the identities ({len(held)} held out) {problem}; set another "
            "dataset.validation_seed, or add identities."
        )
    query = tuple(record for record in records if record in queries)
    gallery = tuple(record for record in records if record.identity in held and record not in queries)
    return Split(train, query, gallery)


def _share_of_unseen(identities: Collection[int], fraction: float, seen: Collection[int]) -> float:
    """Return the share of the identities that are not seen to hold out."""
    unseen = len(identities) - sum(identity in seen for identity in identities)
    if unseen < _MIN_UNSEEN:
        raise InputError(
            f"the pretrained weights were trained on images of {len(identities) - unseen} of the {len(identities)} "
            f"training identities: their score on these says nothing about new ones, and the other {unseen} are too "
            f"few for a validation split, which needs {_MIN_UNSEEN}: start from other weights, add identities that the "
            "weights have never seen, or give such images as dataset.validation."
        )
    return min(_MAX_SHARE, fraction * len(identities) / unseen)


def _queries(images: Sequence[ImageRecord], seed: int) -> list[ImageRecord]:
    """Return the queries among the images of one identity."""
    query_of_camera: dict[int, ImageRecord] = {}
    for record in sorted(images, key=lambda record: _uniform(f"{seed}:{record.path.name}")):
        query_of_camera.setdefault(record.camera, record)
    queries = list(query_of_camera.values())
    gallery_images = Counter(record.camera for record in images)
    gallery_images.subtract(query_of_camera.keys())
    # If all gallery images are of one query's camera, it has no match: the last query becomes a gallery image.
    return queries[:-1] if gallery_images.total() in (gallery_images[camera] for camera in query_of_camera) else queries


def _uniform(text: str) -> float:
    """Return a number in 0..1 that depends on the text alone."""
    return int.from_bytes(blake2b(text.encode(errors="surrogateescape"), digest_size=8).digest(), "big") / 2**64
