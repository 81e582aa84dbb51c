"""Expected cost of the stages after the search."""

from collections.abc import Sequence
from dataclasses import dataclass

from reid_tune.execution.stage_resources import StageResources
from reid_tune.journal.costs import Cost, EpochTiming
from reid_tune.journal.events import ChampionRead
from reid_tune.search.race import champion_trial, race_sizes
from reid_tune.search_space.load import SweepConfig

__all__ = ["FullLength", "StageEstimate", "estimate_confirm", "estimate_later_stages", "estimate_refit"]


@dataclass(frozen=True)
class StageEstimate:
    """Expected cost of a stage.

    Attributes:
        runs: Number of runs.
        epochs: Epochs of all runs together.
        cost: Hours of the driver, GPU-hours and CPU-hours.
    """

    runs: int
    epochs: float
    cost: Cost


@dataclass(frozen=True)
class FullLength:
    """A configuration that is trained at full length.

    Attributes:
        timing: Timing of a trial with it.
        epochs: Its number of epochs.
    """

    timing: EpochTiming
    epochs: int

    @property
    def seconds(self) -> float:
        """Seconds of a whole run."""
        return self.timing.seconds(self.epochs)


def estimate_later_stages(
    sweep: SweepConfig,
    candidates: Sequence[FullLength],
    trials: StageResources,
    refits: StageResources,
    champion: ChampionRead | None = None,
) -> dict[str, StageEstimate]:
    """Return the expected cost of confirm and refit. The stages without runs hold no resources and count as 0.

    Args:
        sweep: Sweep to estimate.
        candidates: Trial 0 and the trials that `confirm` repeats.
        trials: Resources of trials and repeats.
        refits: Resources of refits.
        champion: Registered champion, which is repeated too.
    """
    return {
        "confirm": estimate_confirm(sweep, candidates, trials, champion),
        "refit": estimate_refit(sweep, candidates, refits),
    }


def estimate_confirm(
    sweep: SweepConfig,
    candidates: Sequence[FullLength],
    trials: StageResources,
    champion: ChampionRead | None = None,
) -> StageEstimate:
    """Return the expected cost of the race, in which those that take longest stay, and of the repeats after it."""
    first, *others = candidates
    others = sorted(others, key=lambda candidate: -candidate.seconds)
    race = [candidate for size in race_sizes(len(others)) for candidate in others[:size]]
    compared = [first, *others[:1]]
    if champion and (trial := champion_trial(champion)) and trial.parameters:  # Otherwise its repeats are trial 0's.
        epochs = trial.parameters.get("train.num_epochs", sweep.experiment.train.num_epochs)
        compared.append(FullLength(first.timing, epochs))
    repeats = race + compared * sweep.file.confirm.repeats
    cost = trials.cost([repeat.seconds for repeat in repeats])
    return StageEstimate(len(repeats), sum(repeat.epochs for repeat in repeats), cost)


def estimate_refit(sweep: SweepConfig, candidates: Sequence[FullLength], refits: StageResources) -> StageEstimate:
    """Return the expected cost of refits of trial 0, and of the other candidate that takes longest.

    A refit also trains on the validation split, and its workers are assumed to divide the work without loss.
    """
    first, *others = candidates
    finalists = [first, *([max(others, key=lambda candidate: candidate.seconds)] if others else [])]
    resources = sweep.file.resources
    dataset = sweep.experiment.dataset
    held_out = dataset.validation_fraction if dataset.validation == "holdout" else 0.0
    factor = resources.workers / resources.refit_workers / (1 - held_out)
    seconds = [finalist.timing.start + factor * finalist.timing.epoch * finalist.epochs for finalist in finalists]
    seeds = sweep.file.refit.seeds
    epochs = seeds * sum(finalist.epochs for finalist in finalists)
    return StageEstimate(seeds * len(finalists), epochs, refits.cost(seconds * seeds))
