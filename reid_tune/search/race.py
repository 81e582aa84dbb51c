"""The race: which candidates are trained again, round by round, until one is left to compare with trial 0."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from reid_tune.evaluation.choice import choose
from reid_tune.journal.events import ChampionRead
from reid_tune.journal.state import RunState, SweepState, confirm_run
from reid_tune.search.candidates import select_candidates
from reid_tune.search_space.load import SweepConfig

__all__ = ["Race", "champion_trial", "find_baseline", "first_proof_repeat", "race_sizes", "replay_race"]


def race_sizes(candidates: int) -> list[int]:
    """Return the number of contestants of each round, of which the better half continues: 6, 3 and 2 of 6."""
    sizes = []
    while candidates > 1:
        sizes.append(candidates)
        candidates = -(-candidates // 2)
    return sizes


def first_proof_repeat(sweep: SweepConfig) -> int:
    """Return the number of the first repeat that no candidate of the race may have."""
    return 1 + len(race_sizes(sweep.file.confirm.candidates))


@dataclass(frozen=True)
class Race:
    """A race after the rounds that all their contestants have ended.

    Attributes:
        rounds: Number of these rounds.
        contestants: Trials of the next round, the best first; one or none if the race is over.
        scores: Scores of all candidates by trial number, one for each round that they finished.
        selected: Trial to compare with trial 0 if the race ended now; None if all candidates failed.
    """

    rounds: int
    contestants: tuple[RunState, ...]
    scores: Mapping[int, tuple[float, ...]]
    selected: RunState | None


def find_baseline(state: SweepState) -> RunState | None:
    """Return trial 0 if it has reached its last epoch."""
    return next((trial for trial in state.finished() if trial.number == 0), None)


def champion_trial(champion: ChampionRead) -> RunState | None:
    """Return the champion's recipe as a trial that is repeated like the others; None if it cannot be trained."""
    if champion.version is None or champion.problem:
        return None
    return RunState(f"versions/v{champion.version}", champion.parameters, costs=champion.costs)


def replay_race(sweep: SweepConfig, state: SweepState) -> Race:
    """Return the race as far as the log has it.

    All contestants of a round have its seed and validation split. The better half by the mean over the rounds
    continues. With cost objectives, so does a trial whose mean is within `confirm.margin` of the best one. A trial that
    fails in a round is out. After the last round one of those that are left is selected by `choose`.

    Args:
        sweep: Sweep after the search.
        state: State of its log.

    Raises:
        RunFailedError: no trial of the search reached its last epoch.
    """
    candidates = tuple(trial for trial in select_candidates(sweep, state) if trial.number != 0)
    scores: dict[int, tuple[float, ...]] = {trial.number: () for trial in candidates}
    race = Race(0, candidates, scores, candidates[0] if candidates else None)
    while len(race.contestants) > 1:
        runs = [state.runs.get(confirm_run(trial.number, race.rounds + 1)) for trial in race.contestants]
        if any(run is None or run.state == "running" for run in runs):
            break
        values = [run.last(state.metric) if run and run.state == "finished" else None for run in runs]
        race = _after_round(sweep, race, values)
    return race


def _after_round(sweep: SweepConfig, race: Race, values: Sequence[float | None]) -> Race:
    """Return the race after a round with these scores of its contestants, None for a trial that failed."""
    numbers = [trial.number for trial in race.contestants]
    added = {number: (value,) for number, value in zip(numbers, values, strict=True) if value is not None}
    scores = {number: earlier + added.get(number, ()) for number, earlier in race.scores.items()}
    finished = [trial for trial in race.contestants if trial.number in added]
    finished.sort(key=lambda trial: (-_mean(scores[trial.number]), trial.number))
    size = -(-len(race.contestants) // 2)
    survivors = _survivors(sweep, finished, scores, size)
    is_last = race.rounds + 2 == first_proof_repeat(sweep)
    selected = _choose(sweep, finished, scores)
    return Race(race.rounds + 1, () if is_last else tuple(survivors), scores, selected)


def _survivors(
    sweep: SweepConfig, ranked: Sequence[RunState], scores: Mapping[int, tuple[float, ...]], size: int
) -> list[RunState]:
    """Return the best trials by number, and with cost objectives also those within the margin of the best."""
    margin = sweep.file.confirm.margin / 100 if sweep.file.costs else -1.0
    best = _mean(scores[ranked[0].number]) if ranked else 0.0
    return [trial for rank, trial in enumerate(ranked) if rank < size or _mean(scores[trial.number]) >= best - margin]


def _choose(
    sweep: SweepConfig, contestants: Sequence[RunState], scores: Mapping[int, tuple[float, ...]]
) -> RunState | None:
    if not contestants:
        return None
    costs = [[trial.costs[name] for name in sweep.file.costs] for trial in contestants]
    values = np.array([scores[trial.number] for trial in contestants])
    return contestants[choose(values, costs, sweep.file.confirm.margin / 100)]


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values))
