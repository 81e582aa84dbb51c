"""Limit on the memory of images that are decoded at the same time."""

import threading

__all__ = ["SMALL_PIXELS", "PixelBudget"]

SMALL_PIXELS = 1_000_000


class PixelBudget:
    """Limit on the pixels of the images that all threads of this process hold at the same time.

    Args:
        limit: Number of pixels, at least those of the largest image.
    """

    def __init__(self, limit: int) -> None:
        self._limit, self._held, self._changed = limit, 0, threading.Condition()

    def acquire(self, pixels: int) -> int:
        """Wait until an image fits next to those of other threads, and return the pixels to release afterwards.

        Images of at most a megapixel are not counted and never wait.

        Args:
            pixels: Pixels of the image, at most the limit.
        """
        if pixels <= SMALL_PIXELS:
            return 0
        with self._changed:
            self._changed.wait_for(lambda: self._held + pixels <= self._limit)
            self._held += pixels
        return pixels

    def release(self, pixels: int) -> None:
        """Give back the pixels that `acquire` has returned."""
        if pixels:
            with self._changed:
                self._held -= pixels
                self._changed.notify_all()
