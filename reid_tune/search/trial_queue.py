"""The order of a search's trials: the spec itself, users' requests, initial points, the sampler's suggestions."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from reid_tune.config.experiment import Experiment
from reid_tune.config.load import with_parameters
from reid_tune.journal.events import RunSuggested
from reid_tune.journal.journal import Journal
from reid_tune.journal.requests import Request, pending_requests, remove_request
from reid_tune.journal.state import trial_run
from reid_tune.search.budget import BudgetTracker
from reid_tune.search.study import Study
from reid_tune.search.target import find_target_trial
from reid_tune.search_space.load import SweepConfig

__all__ = ["NewTrial", "TrialQueue"]


class NewTrial(NamedTuple):
    """A trial that was recorded and can be started."""

    run: str
    experiment: Experiment


class TrialQueue:
    """Decides which trial comes next, and records it.

    Args:
        sweep: Sweep of the search.
        journal: Event log; the initial points are in the result of the stage `preflight`.
        study: Study that suggests configurations.
        budget_tracker: Tracker of the sweep's budget, None to limit only the number of trials.
    """

    def __init__(
        self, sweep: SweepConfig, journal: Journal, study: Study, budget_tracker: BudgetTracker | None = None
    ) -> None:
        self.sweep = sweep
        self.journal = journal
        self.study = study
        self.budget_tracker = budget_tracker
        self.is_space_used_up = False
        preflight = journal.state.stages.get("preflight", {})
        self.initial_points: list[dict[str, Any]] = preflight.get("initial_points", [])

    def end_reason(self) -> str | None:
        """Return why the suggestions ended, None while there is a next one or before trial 0.

        Returns:
            The key of `budget` that ends them, `target` when a full-length trial has reached it, or `space` when trials
            have all configurations of the space.
        """
        trials = self.journal.state.trials
        if not trials:
            return None
        if find_target_trial(self.journal.state, self.sweep.file.target):
            return "target"
        if len(trials) >= self.sweep.file.budget.trials:
            return "trials"
        if self.is_space_used_up:
            return "space"
        return self.budget_tracker.next_trial_limit() if self.budget_tracker else None

    def enqueued(self) -> list[Request]:
        """Return users' requests for a trial that are not in the log yet, the oldest first."""
        return [
            request
            for request in pending_requests(self.journal.folder)
            if request.kind == "enqueue" and request.name not in self.journal.state.requests
        ]

    def next_trial(self) -> NewTrial | None:
        """Record and return the next trial, None if there is none now.

        A user's request is granted even if the budget allows no further trial.
        """
        trials = self.journal.state.trials
        run = trial_run(len(trials))
        if not trials:
            self.study.add_trial(run, {})
            return self._record(run, {}, "spec")
        requests = self.enqueued()
        if requests:
            parameters = requests[0].parameters or {}
            self.study.add_trial(run, parameters)
            trial = self._record(run, parameters, "user", requests[0].name)
            remove_request(requests[0])
            return trial
        if self.end_reason() is not None:
            return None
        configurations = self.study.known_configurations
        point = next((point for point in self.initial_points if point["parameters"] not in configurations), None)
        if point is not None:
            self.study.add_trial(run, point["parameters"])
            return self._record(run, point["parameters"], point["origin"])
        suggestion = self.study.ask(run, len(trials))
        self.is_space_used_up = suggestion is None
        return None if suggestion is None else self._record(run, suggestion, "sampler")

    def _record(self, run: str, parameters: Mapping[str, Any], origin: str, request: str | None = None) -> NewTrial:
        experiment = with_parameters(self.sweep.experiment, parameters, run)
        costs: dict[str, float] = {}
        if self.sweep.file.costs:
            from reid_tune.modeling.cost import model_cost

            model_costs = model_cost(experiment)
            costs = {name: model_costs[name] for name in self.sweep.file.costs}
        self.study.record_costs(run, list(costs.values()))
        self.journal.emit(
            RunSuggested(run=run, parameters=dict(parameters), origin=origin, costs=costs, request=request)
        )
        return NewTrial(run, experiment)
