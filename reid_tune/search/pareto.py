"""The Pareto front of a sweep with several objectives."""

from collections.abc import Sequence

from reid_tune.journal.state import RunState

__all__ = ["pareto_front"]


def pareto_front(trials: Sequence[RunState], metric: str, costs: Sequence[str]) -> list[RunState]:
    """Return the full-length trials that no other one beats, the best score first.

    A trial beats another one if it is at least as good in all objectives and better in one.

    Args:
        trials: Trials of a sweep.
        metric: Name of the score, larger is better. The last score of each trial counts.
        costs: Names of the further objectives, smaller is better. Without them, the front is the best trial.
    """
    ranked = []
    for trial in trials:
        score = trial.last(metric)
        if trial.state == "finished" and score is not None and all(name in trial.costs for name in costs):
            ranked.append(((-score, *(trial.costs[name] for name in costs)), trial.number, trial))
    if not costs:
        return [trial for _, _, trial in sorted(ranked, key=lambda entry: entry[:2])[:1]]
    front: list[tuple[tuple[float, ...], RunState]] = []
    # A trial that beats another one is sorted before it, and so is the trial of the front that beats the former.
    for losses, _, trial in sorted(ranked, key=lambda entry: entry[:2]):
        if not any(best != losses and all(a <= b for a, b in zip(best, losses, strict=True)) for best, _ in front):
            front.append((losses, trial))
    return [trial for _, trial in front]
