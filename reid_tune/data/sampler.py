"""Batches of P identities with K images each, as index arrays that any process can compute for any epoch."""

import numpy as np

from reid_tune.data.camera_groups import CameraGroups
from reid_tune.errors import InputError

__all__ = ["IdentitySampler"]

# Expected visits are integers in this unit, so that their sums are exact.
UNIT = 1 << 32
# The golden ratio in units: its multiples modulo UNIT leave no interval unvisited for long.
STRIDE = 2654435769


class IdentitySampler:
    """Sampler of P x K batches, which depend on labels, batch size, K, seed and epoch number alone.

    An epoch has `round(images / batch_size)` steps, so that an image is used about once per epoch. An identity is
    visited in proportion to its number of images (at least K), but at most once per batch; if that limit applies, the
    other identities get the remaining visits in proportion. The visits of an epoch are this expected number rounded
    down or up, so that the mean over the epochs is the expected number. At a visit, K images are taken from the
    identity's cycle: within an epoch none repeats before all were used, and over all epochs their counts differ by at
    most one. Only an identity with fewer than K images repeats one within a batch.

    With cameras, the images of a visit are those of `CameraGroups` instead.

    Args:
        labels: Class of each image, int [N].
        batch_size: Number of images in a global batch, P x K.
        num_instances: Number of images per identity in a batch, K.
        seed: Seed, 0 or more.
        cameras: Camera of each image, int [N]; None to choose images without regard to cameras.
        weights: Factor on the visits of the identity of each image, float [N], equal for all images of an identity.
        cap: Maximum number of images of an identity in an epoch, `num_instances` or more. An identity then counts as
            at most so many images in the length of an epoch and in the share of its visits.

    Raises:
        InputError: `batch_size` is not a multiple of `num_instances`, or there are fewer identities than P.
    """

    def __init__(
        self,
        labels: np.ndarray,
        batch_size: int,
        num_instances: int,
        seed: int,
        *,
        cameras: np.ndarray | None = None,
        weights: np.ndarray | None = None,
        cap: int | None = None,
    ) -> None:
        _, first, labels, sizes = np.unique(labels, return_index=True, return_inverse=True, return_counts=True)
        _require_batch(len(sizes), batch_size, num_instances)
        capped = sizes if cap is None else np.minimum(sizes, cap)
        self.steps_per_epoch = max(1, round(int(capped.sum()) / batch_size))
        limit = self.steps_per_epoch  # of the visits of an identity in an epoch
        if cap is not None:
            possible = len(sizes) * (cap // num_instances) // (batch_size // num_instances)
            self.steps_per_epoch = min(self.steps_per_epoch, possible)
            limit = min(self.steps_per_epoch, cap // num_instances)
        self._identities, self._instances, self._seed = batch_size // num_instances, num_instances, seed

        rng = np.random.default_rng((seed, 0))
        shuffled = rng.permutation(len(labels))
        by_identity = shuffled[np.argsort(labels[shuffled], kind="stable")]
        self._members = np.split(by_identity, np.cumsum(sizes)[:-1])
        self._order = rng.permutation(len(sizes))
        shares = np.maximum(capped, num_instances) * (1 if weights is None else weights[first])
        expected = _expected_visits(shares, self._identities * self.steps_per_epoch, limit)
        self._edges = np.concatenate([[0], np.cumsum(expected[self._order])])
        self._origin = int(rng.integers(UNIT))
        self._groups = (
            None if cameras is None else [CameraGroups(members, cameras, num_instances) for members in self._members]
        )

    def epoch(self, number: int) -> np.ndarray:
        """Return image indices, int64 [steps, batch_size], for a 0-based epoch; images of an identity are adjacent."""
        rng = np.random.default_rng((self._seed, 1, number))
        visits = self._visits(number)
        earlier = sum((self._visits(past) for past in range(number)), np.zeros_like(visits))
        identities = _arrange(visits, self._identities, self.steps_per_epoch, rng)
        images = [
            self._images(identity, earlier[identity], visits[identity], rng) for identity in range(len(self._members))
        ]
        batches = np.empty((identities.size, self._instances), np.int64)
        batches[np.argsort(identities, axis=None, kind="stable")] = np.concatenate(images).reshape(-1, self._instances)
        return batches.reshape(self.steps_per_epoch, -1)

    def _visits(self, number: int) -> np.ndarray:
        """Return the visits of each identity in an epoch: the whole units in its interval of a shifted line."""
        shift = (self._origin + number * STRIDE) % UNIT
        visits = np.empty(len(self._members), np.int64)
        visits[self._order] = np.diff((self._edges + shift) // UNIT)
        return visits

    def _images(self, identity: int, earlier: int, visits: int, rng: np.random.Generator) -> np.ndarray:
        """Return the images of an identity in the order of its visits in this epoch."""
        if self._groups is not None:
            return self._groups[identity].draw(int(visits), rng)
        members = self._members[identity]
        start = earlier * self._instances % len(members)
        passes, remainder = divmod(visits * self._instances, len(members))
        part = np.roll(members, -start)[:remainder]
        # Reversed: a part must come after the full passes here, but before them in `_passes`.
        return _passes(part, members, passes, self._instances, rng)[::-1]


def _require_batch(identities: int, batch_size: int, num_instances: int) -> None:
    if batch_size < num_instances or batch_size % num_instances:
        raise InputError(
            f"dataset.batch_size {batch_size} is not a multiple of dataset.num_instances {num_instances}; "
            "a batch has num_instances images of each of its identities."
        )
    if identities < batch_size // num_instances:
        raise InputError(
            f"the training images have {identities} identities, but a batch needs {batch_size // num_instances} "
            f"(dataset.batch_size {batch_size} / dataset.num_instances {num_instances}); "
            f"set dataset.batch_size to {identities * num_instances} or less, or add identities."
        )


def _expected_visits(weights: np.ndarray, total: int, limit: int) -> np.ndarray:
    """Return expected visits in units: proportional to the weights, at most `limit` each, `total` in sum."""
    visits = np.zeros(len(weights))
    free = np.ones(len(weights), bool)
    while free.any():
        left = total - limit * np.count_nonzero(~free)
        visits[free] = weights[free] * (left / weights[free].sum())
        over = free & (visits >= limit)
        if not over.any():
            break
        visits[over] = limit
        free &= ~over
    units = np.rint(visits * UNIT).astype(np.int64)
    units[units.argmin()] += total * UNIT - units.sum()
    return units


def _arrange(visits: np.ndarray, per_step: int, steps: int, rng: np.random.Generator) -> np.ndarray:
    """Distribute the visits over the steps, int64 [steps, per_step], with no identity twice in a step.

    Each step draws identities without replacement, weighted by their remaining visits (Efraimidis & Spirakis 2006).
    Identities with as many remaining visits as steps are always taken, so that all visits are used.
    """
    left = visits.copy()
    chosen = np.empty((steps, per_step), np.int64)
    for step in range(steps):
        keys = rng.standard_exponential(len(left)) / np.maximum(left, 1e-9)
        keys[left == steps - step] = -1.0
        # Sorted, as the order within a partition depends on the processor.
        chosen[step] = rng.permutation(np.sort(np.argpartition(keys, per_step - 1)[:per_step]))
        left[chosen[step]] -= 1
    return chosen


def _passes(part: np.ndarray, items: np.ndarray, count: int, group: int, rng: np.random.Generator) -> np.ndarray:
    """Return `part` and then `count` passes over all `items`, each shuffled.

    No item is twice in one of the consecutive groups of size `group`, if there are enough items: a pass starts with
    items that are not in the group that it completes.
    """
    passes = [rng.permutation(part)]
    length = len(part)
    for _ in range(count):
        shuffled = rng.permutation(items)
        incomplete = length % group
        if incomplete:
            tail = np.concatenate(passes)[-incomplete:]
            head = shuffled[~np.isin(shuffled, tail)][: group - incomplete]
            shuffled = np.concatenate([head, shuffled[~np.isin(shuffled, head)]])
        passes.append(shuffled)
        length += len(items)
    return np.concatenate(passes)
