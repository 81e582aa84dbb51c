"""Groups of K images of an identity from as many of its cameras as possible."""

import numpy as np

__all__ = ["CameraGroups"]


class CameraGroups:
    """Groups of K images of one identity, which depend on its images and a random number generator alone.

    A group has min(K, cameras) cameras, whose numbers of images differ by at most one if each has enough images; it
    repeats an image only if the identity has fewer than K. Where a camera is left out of a group, the cameras take
    turns. In an epoch a camera repeats an image only after all its images; every epoch begins with another order.

    Args:
        members: Indices of the images of the identity, int64 [n].
        cameras: Cameras of all images, int [N].
        num_instances: Number of images in a group, K.
    """

    def __init__(self, members: np.ndarray, cameras: np.ndarray, num_instances: int) -> None:
        numbers = cameras[members]
        self._images = [members[numbers == camera] for camera in np.unique(numbers)]
        # An identity with fewer than K images counts as several copies of its images.
        copies = -(-num_instances // len(members))
        sizes = np.array([len(images) * copies for images in self._images])
        self._always = np.zeros(len(sizes), np.int64)  # images of each camera in every group
        while (left := num_instances - self._always.sum()) >= (available := self._always < sizes).sum() and left:
            self._always += available
        self._alternating, self._left = np.flatnonzero(available), int(left)

    def draw(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """Return the images of the groups of an epoch, int64 [count * K].

        Args:
            count: Number of groups.
            rng: Random number generator.
        """
        counts = np.tile(self._always, (count, 1))
        if self._left:
            turns = np.arange(count * self._left).reshape(count, self._left) % len(self._alternating)
            counts[np.arange(count)[:, None], rng.permutation(self._alternating)[turns]] += 1
        orders = [rng.permutation(images) for images in self._images]
        images = [np.resize(order, total) for order, total in zip(orders, counts.sum(0), strict=True)]
        groups = [np.repeat(np.arange(count), column) for column in counts.T]
        return np.concatenate(images)[np.argsort(np.concatenate(groups), kind="stable")]
