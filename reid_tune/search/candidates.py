"""The candidates: trials of a search that are trained again."""

from reid_tune.errors import RunFailedError
from reid_tune.journal.state import RunState, SweepState
from reid_tune.search.configurations import configuration_key
from reid_tune.search.pareto import pareto_front
from reid_tune.search_space.load import SweepConfig

__all__ = ["select_candidates"]


def select_candidates(sweep: SweepConfig, state: SweepState) -> list[RunState]:
    """Return the trials to train again: trial 0 and the best ones with different configurations, the best first.

    With several objectives, the best ones are those of the Pareto front with the best scores.

    Raises:
        RunFailedError: no trial reached its last epoch.
    """
    full = state.finished()
    if not full:
        reasons = sorted({trial.reason for trial in state.trials if trial.reason})
        raise RunFailedError(
            f"no trial of the search reached its last epoch: {'; '.join(reasons) or 'none was started'}."
        )
    best = pareto_front(full, state.metric, sweep.file.costs) if sweep.file.costs else full
    baseline = [trial for trial in full if trial.number == 0]
    distinct: dict[str, RunState] = {}  # Users may have enqueued a configuration twice.
    for trial in baseline + best:
        distinct.setdefault(configuration_key(sweep, trial.parameters), trial)
    others = [trial for trial in distinct.values() if trial.number != 0][: sweep.file.confirm.candidates]
    return baseline + others
