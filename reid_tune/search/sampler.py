"""The interface of samplers, and those that learn nothing: `random` and `grid`."""

from collections.abc import Generator, Mapping, Sequence
from hashlib import blake2b
from typing import Any, NamedTuple

__all__ = ["GridSampler", "Sampler", "TrialEnd", "suggestion_seed"]


class TrialEnd(NamedTuple):
    """The end of a trial.

    Attributes:
        state: finished, stopped or failed.
        value: Last score, None without one.
        epochs: Score by 1-based epoch.
        costs: Values of the further objectives, in the order of the search-space file.
        failure: Kind of the failure, empty without one.
    """

    state: str
    value: float | None
    epochs: Mapping[int, float]
    costs: Sequence[float] = ()
    failure: str = ""


class Sampler:
    """The sampler `random`, and the interface of the others: it learns nothing, and prefers no configuration.

    `Study` draws at random where a sampler has no candidate left.

    Attributes:
        is_exhaustive: Whether nothing may be suggested in addition to the candidates.
    """

    is_exhaustive = False

    def add(self, run: str, configuration: Mapping[str, Any]) -> None:
        """Add a running trial."""

    def record_costs(self, run: str, costs: Sequence[float]) -> None:
        """Record the further objectives of a trial, which follow from its configuration, in the file's order."""

    def report(self, run: str, epoch: int, score: float) -> None:
        """Record the score of a running trial at an epoch."""

    def end(self, run: str, end: TrialEnd) -> None:
        """Record the end of a trial."""

    def candidates(self, number: int) -> Generator[dict[str, Any], None, None]:
        """Yield candidates for a trial, the best one first. The generator must be closed before the next record."""
        yield from ()


class GridSampler(Sampler):
    """The sampler `grid`.

    Args:
        configurations: All configurations, in order.
    """

    is_exhaustive = True

    def __init__(self, configurations: Sequence[dict[str, Any]]) -> None:
        self.configurations = configurations

    def candidates(self, number: int) -> Generator[dict[str, Any], None, None]:
        yield from self.configurations


def suggestion_seed(seed: int, number: int) -> int:
    """Return the 32-bit seed of one suggestion, determined by the sweep's seed and the trial's number."""
    return int.from_bytes(blake2b(f"{seed}:{number}".encode(), digest_size=4).digest(), "big")
