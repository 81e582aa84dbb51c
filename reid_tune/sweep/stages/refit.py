"""Refit: train the winner and trial 0 again, on all training identities."""

from reid_tune.execution.fixed_runs import FixedRuns
from reid_tune.execution.run_source import ONE_CPU, ResourceRequest
from reid_tune.journal.journal import Journal
from reid_tune.journal.state import RunState, refit_run, trial_run
from reid_tune.search_space.load import SweepConfig

__all__ = ["find_finalists", "make_refit_runs"]


def find_finalists(journal: Journal) -> dict[str, RunState]:
    """Return the trials to refit by name: `winner`, and `trial0` if that is another one and finished its repeats."""
    confirm_result = journal.state.stages["confirm"]
    finalists = {"winner": journal.state.runs[trial_run(confirm_result["winner"])]}
    if confirm_result["winner"] != 0 and any(row["number"] == 0 for row in confirm_result["trials"]):
        finalists["trial0"] = journal.state.runs[trial_run(0)]
    return finalists


def make_refit_runs(sweep: SweepConfig, journal: Journal, resources: ResourceRequest = ONE_CPU) -> FixedRuns:
    """Return the refits, which have no validation split. Those after the first one of a finalist differ in the seed."""
    seed = sweep.experiment.train.seed
    runs = {
        refit_run(name, number): {
            **trial.parameters,
            "dataset.validation": "none",
            **({"train.seed": seed + number - 1} if number > 1 else {}),
        }
        for number in range(1, sweep.file.refit.seeds + 1)
        for name, trial in find_finalists(journal).items()
    }
    return FixedRuns(sweep, journal, runs, resources)
