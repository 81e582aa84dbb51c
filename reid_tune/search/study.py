"""The study of a search: suggest configurations, learn from the trials."""

from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from itertools import islice
from typing import Any

import numpy as np

from reid_tune.errors import RunFailedError
from reid_tune.search.asha import NO_RUNGS, Rungs
from reid_tune.search.configurations import KnownConfigurations
from reid_tune.search.earlier_trials import earlier_trials
from reid_tune.search.encoding import SpaceEncoding
from reid_tune.search.joint_sampler import JointSampler
from reid_tune.search.sampler import GridSampler, Sampler, TrialEnd, suggestion_seed
from reid_tune.search.tpe_sampler import TpeSampler
from reid_tune.search_space.load import SweepConfig
from reid_tune.search_space.space import grid_configurations

__all__ = ["Study", "make_sampler"]

_RANDOM_DRAWS = 10_000  # for one suggestion
_REPEATED_DRAWS = 300  # of known configurations, after which a small space is searched completely
_MAX_STARTUP = {"tpe": 10, "auto": 6}


class Study:
    """Suggests configurations that no trial has yet, by the sampler of the search-space file.

    Args:
        sweep: Sweep of the search.
        rungs: ASHA's rungs.
        learned: Earlier sweeps as the stage `preflight` has recorded them.
    """

    def __init__(self, sweep: SweepConfig, rungs: Rungs = NO_RUNGS, learned: Sequence[Mapping[str, Any]] = ()) -> None:
        self.space = sweep.space
        self.settings = sweep.file.search
        self.known_configurations = KnownConfigurations(sweep)
        self.encoding = SpaceEncoding(sweep.space)
        self.sampler = make_sampler(sweep, self.encoding, rungs, learned)

    def ask(self, run: str, number: int) -> dict[str, Any] | None:
        """Suggest a configuration for a trial, determined by the seed, the trial's number and the study.

        Returns:
            The configuration, None if trials have all configurations of the space.

        Raises:
            RunFailedError: 10,000 random draws break the constraints.
        """
        with closing(self._candidates(run, number)) as candidates:
            parameters = next(candidates, None)
        if parameters is not None:
            self.add_trial(run, parameters)
        return parameters

    def add_trial(self, run: str, parameters: Mapping[str, Any]) -> None:
        """Add a running trial, perhaps of an earlier process."""
        self.known_configurations.add(parameters)
        self.sampler.add(run, parameters)

    def record_costs(self, run: str, costs: Sequence[float]) -> None:
        """Record the further objectives of a trial, which follow from its configuration, in the file's order."""
        self.sampler.record_costs(run, costs)

    def report(self, run: str, epoch: int, score: float) -> None:
        """Record the score of a running trial at an epoch."""
        self.sampler.report(run, epoch, score)

    def tell(
        self,
        run: str,
        state: str,
        value: float | None,
        epochs: Mapping[int, float],
        *,
        costs: Sequence[float] = (),
        failure: str = "",
    ) -> None:
        """Record the end of a trial; for the arguments see `TrialEnd`.

        The samplers learn from memory errors and diverged losses, not from other failures.
        """
        self.sampler.end(run, TrialEnd(state, value, epochs, costs, failure))

    def random_draws(self, seed: int, count: int) -> list[dict[str, Any]]:
        """Return random configurations, which may break the constraints."""
        return list(islice(self._random(seed), count))

    def _candidates(self, run: str, number: int) -> Generator[dict[str, Any], None, None]:
        """Yield configurations that satisfy the constraints and that no trial has, the best one first."""
        with closing(self.sampler.candidates(number)) as candidates:
            yield from self._suitable(candidates)
        if self.sampler.is_exhaustive:
            return
        seed = suggestion_seed(self.settings.seed, number)
        repeated = 0
        for parameters in islice(self._random(seed), _RANDOM_DRAWS):
            if self.space.allows(parameters):
                yield from self._suitable([parameters])
                repeated += 1
                if repeated >= _REPEATED_DRAWS and self.space.is_finite:
                    break
        if not repeated:
            raise RunFailedError(
                f"{run}: {_RANDOM_DRAWS:,} random configurations break the constraints: "
                "loosen them or widen the ranges."
            )
        if self.space.is_finite:
            yield from self._suitable(self.space.all_configurations())

    def _suitable(self, configurations: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        """Return the configurations that satisfy the constraints and that no trial has; networks are built last."""
        tried = self.known_configurations
        new = (item for item in configurations if self.space.allows(item, with_costs=False) and item not in tried)
        return filter(self.space.allows, new)

    def _random(self, seed: int) -> Iterator[dict[str, Any]]:
        random = np.random.default_rng(seed)
        while True:
            yield self.encoding.configuration(random.random(self.encoding.dimensions))


def make_sampler(
    sweep: SweepConfig, encoding: SpaceEncoding, rungs: Rungs, learned: Sequence[Mapping[str, Any]]
) -> Sampler:
    """Return the sampler that the search-space file names.

    Args:
        sweep: Sweep of the search.
        encoding: Encoding of its space.
        rungs: ASHA's rungs.
        learned: Earlier sweeps as the stage `preflight` has recorded them.
    """
    settings = sweep.file.search
    startup = max(4, min(_MAX_STARTUP.get(settings.sampler, 0), sweep.file.budget.trials // 4))
    match settings.sampler:
        case "auto":
            earlier = earlier_trials(encoding, rungs, learned)
            return JointSampler(encoding, settings.seed, startup, rungs, earlier)
        case "tpe":
            return TpeSampler(sweep.space, settings.seed, startup, len(sweep.file.costs))
        case "grid":
            return GridSampler(grid_configurations(sweep.space))
        case "random":
            return Sampler()
