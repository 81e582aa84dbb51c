"""Batches of P identities with K images each, as arrays of indices that any process can compute for any epoch."""

import numpy as np

from reid_tune.errors import InputError

__all__ = ["IdentitySampler"]

# Shares of visits are integers in these units, so that their sums are exact.
UNIT = 1 << 32
# The golden ratio in units: its multiples modulo UNIT leave no interval unvisited for long.
STRIDE = 2654435769


class IdentitySampler:
    """P x K batches, a function of (labels, batch size, K, seed, epoch number) alone.

    An epoch has `round(images / batch_size)` steps, so that an image is used about once in an epoch. An identity is
    visited in proportion to its images (one with fewer than K counts as K), but at most once in a batch; where
    that limit binds, the others share the rest in proportion. Visits are the share rounded down or up, and up often
    enough to hold the share over the epochs. At a visit K images are taken from the identity's cycle: within an epoch
    none repeats before all were used, and over all epochs their counts differ by one at most. Only an identity
    with fewer than K images repeats one within a batch.

    Args:
        labels: int [N], the class of each image.
        batch_size: images in a (global) batch, P x K.
        num_instances: images of an identity in a batch, K.
        seed: 0 or more.

    Raises:
        InputError: `batch_size` is not a multiple of `num_instances`, or there are fewer identities than P.
    """

    def __init__(self, labels: np.ndarray, batch_size: int, num_instances: int, seed: int) -> None:
        _, labels, sizes = np.unique(labels, return_inverse=True, return_counts=True)
        _check(len(sizes), batch_size, num_instances)
        self.steps_per_epoch = max(1, round(len(labels) / batch_size))
        self._identities, self._instances, self._seed = batch_size // num_instances, num_instances, seed

        rng = np.random.default_rng((seed, 0))
        shuffled = rng.permutation(len(labels))
        by_identity = shuffled[np.argsort(labels[shuffled], kind="stable")]
        self._members = np.split(by_identity, np.cumsum(sizes)[:-1])
        self._line = rng.permutation(len(sizes))
        shares = _shares(np.maximum(sizes, num_instances), self._identities, self.steps_per_epoch)
        self._edges = np.concatenate([[0], np.cumsum(shares[self._line])])
        self._origin = int(rng.integers(UNIT))

    def epoch(self, number: int) -> np.ndarray:
        """Indices of images, int64 [steps, batch_size], for epoch 0, 1, ...; the K images of an identity adjoin."""
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
        """Visits of each identity in an epoch: the whole units that its stretch of a shifted line contains."""
        shift = (self._origin + number * STRIDE) % UNIT
        visits = np.empty(len(self._members), np.int64)
        visits[self._line] = np.diff((self._edges + shift) // UNIT)
        return visits

    def _images(self, identity: int, earlier: int, visits: int, rng: np.random.Generator) -> np.ndarray:
        """The images of an identity in the order of its visits in this epoch."""
        members = self._members[identity]
        start = earlier * self._instances % len(members)
        passes, rest = divmod(visits * self._instances, len(members))
        part = np.roll(members, -start)[:rest]
        # Drawn backwards: a part must come after the full passes here, but before them in `_passes`.
        return _passes(part, members, passes, self._instances, rng)[::-1]


def _check(identities: int, batch_size: int, num_instances: int) -> None:
    if batch_size < num_instances or batch_size % num_instances:
        raise InputError(
            f"dataset.batch_size {batch_size} is not a multiple of dataset.num_instances {num_instances}; "
            "a batch holds num_instances images of each of its identities."
        )
    if identities < batch_size // num_instances:
        raise InputError(
            f"the training images have {identities} identities, but a batch needs {batch_size // num_instances} "
            f"(dataset.batch_size {batch_size} / dataset.num_instances {num_instances}); "
            f"set dataset.batch_size to {identities * num_instances} or less, or add identities."
        )


def _shares(weights: np.ndarray, per_step: int, steps: int) -> np.ndarray:
    """Visits in an epoch in units: proportional to the weights, at most `steps` each, `per_step * steps` in sum."""
    shares = np.zeros(len(weights))
    free = np.ones(len(weights), bool)
    while free.any():
        left = steps * (per_step - np.count_nonzero(~free))
        shares[free] = weights[free] * (left / weights[free].sum())
        over = free & (shares >= steps)
        if not over.any():
            break
        shares[over] = steps
        free &= ~over
    units = np.rint(shares * UNIT).astype(np.int64)
    units[units.argmin()] += per_step * steps * UNIT - units.sum()
    return units


def _arrange(visits: np.ndarray, per_step: int, steps: int, rng: np.random.Generator) -> np.ndarray:
    """Spread the visits over the steps, int64 [steps, per_step], no identity twice in a step.

    Each step draws identities without replacement, weighted by the visits they have left (Efraimidis & Spirakis 2006);
    those with as many visits as steps left are taken in any case, hence all visits find a place.
    """
    left = visits.copy()
    chosen = np.empty((steps, per_step), np.int64)
    for step in range(steps):
        keys = rng.standard_exponential(len(left)) / np.maximum(left, 1e-9)
        keys[left == steps - step] = -1.0
        # Sorted, because the order that a partition leaves depends on the processor.
        chosen[step] = rng.permutation(np.sort(np.argpartition(keys, per_step - 1)[:per_step]))
        left[chosen[step]] -= 1
    return chosen


def _passes(part: np.ndarray, items: np.ndarray, count: int, group: int, rng: np.random.Generator) -> np.ndarray:
    """`part` and then `count` times all `items`, each shuffled.

    Each consecutive `group` has no item twice if there are that many items: a pass begins with items that the
    group it completes does not have.
    """
    passes = [rng.permutation(part)]
    length = len(part)
    for _ in range(count):
        shuffled = rng.permutation(items)
        begun = length % group
        if begun:
            tail = np.concatenate(passes)[-begun:]
            head = shuffled[~np.isin(shuffled, tail)][: group - begun]
            shuffled = np.concatenate([head, shuffled[~np.isin(shuffled, head)]])
        passes.append(shuffled)
        length += len(items)
    return np.concatenate(passes)
