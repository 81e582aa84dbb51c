"""The driver of a sweep: runs one stage after the other, and records each in the event log."""

from collections.abc import Callable, Sequence
from functools import cached_property, partial
from typing import Any

from rich.console import Console

from reid_tune.errors import InputError
from reid_tune.execution.run_source import RunSource
from reid_tune.execution.stage_resources import StageResources, find_capacity, find_placement, resolve_stage_resources
from reid_tune.execution.stage_task import StageFunction, run_stage_on_gpu
from reid_tune.imports import quick_imports
from reid_tune.journal.costs import EpochTiming
from reid_tune.journal.event_log import read_events
from reid_tune.journal.events import ChampionRead, StageDone, StageStarted
from reid_tune.journal.journal import Journal
from reid_tune.journal.state import SweepState
from reid_tune.journal.sweep_store import SweepStore
from reid_tune.report.live import LiveView
from reid_tune.search.asha import Rungs
from reid_tune.search.budget import BudgetTracker, require_gpus_for_gpu_hours
from reid_tune.search_space.load import SweepConfig
from reid_tune.sweep.champion import read_missing_champion
from reid_tune.sweep.ending import print_warning, track_sweep, write_sweep_page
from reid_tune.sweep.resume import record_driver_start, record_space_change, reopen_stages
from reid_tune.sweep.stages.confirm import RepeatLimit, choose_winner, confirm_sources
from reid_tune.sweep.stages.preflight import PreflightResult
from reid_tune.sweep.stages.refit import make_refit_runs
from reid_tune.sweep.stages.rerank import choose_settings
from reid_tune.sweep.stages.search import TrialSource
from reid_tune.tasks.split import SPLIT, write_split_lists
from reid_tune.training.data_split import has_validation_split

__all__ = ["SweepDriver"]


class SweepDriver:
    """The process that drives a sweep.

    Args:
        sweep: Sweep to run.
        files: Store of its files.
        checks: Result of the checks.
        plan: Result of the stage `preflight`.
        champion: Registered champion to compare the winner with; None to compare it with none.
        console: Console for the live view and warnings.
    """

    def __init__(
        self,
        sweep: SweepConfig,
        files: SweepStore,
        checks: PreflightResult,
        plan: dict[str, Any],
        champion: ChampionRead | None,
        console: Console,
    ) -> None:
        self.sweep, self.files, self.console = sweep, files, console
        self.checks, self.plan, self.champion = checks, plan, champion
        self.stages: dict[str, Callable[[], dict[str, Any]]] = {
            "preflight": self._preflight,
            "search": self._search,
            "confirm": self._confirm,
            "rerank": lambda: self._score("rerank", choose_settings),
            "refit": self._refit,
            "export": self._export,
            "test": self._test,
            "register": self._register,
        }
        for warning in plan["warnings"]:
            print_warning(console, warning)

    def run(self, stages: Sequence[str], redone: Sequence[str], past_events: int) -> SweepState:
        """Run stages, and return the state after them.

        Args:
            stages: Names of the stages to run.
            redone: Names of the stages that are done again.
            past_events: Number of events in the log when the stages were chosen.

        Raises:
            InputError: another driver has changed the log since then.
        """
        self.view = LiveView(self.console, self.sweep.file.budget.trials)
        with Journal(self.files, partial(print_warning, self.console)) as self.journal, self.view:
            if len(self.journal.earlier_events) != past_events:
                raise InputError(
                    f"another driver has changed {self.sweep.location} in the meantime: give the command again."
                )
            self.journal.listeners.append(self.view)
            record_driver_start(self.sweep, self.journal)
            if self.champion and self.champion != self.journal.state.champion:
                self.journal.emit(self.champion)
            if redone:
                reopen_stages(self.journal, redone)
            record_space_change(self.sweep, self.journal, self.checks.pretrained)
            with track_sweep(self.sweep, self.journal, self.console) as sender:
                self.view.tracking = lambda: sender.lag_message
                for stage in stages:
                    self.journal.emit(StageStarted(stage=stage))
                    self.journal.emit(StageDone(stage=stage, result=self.stages[stage]()))
                write_sweep_page(self.sweep, self.journal, self.console)
            return self.journal.state

    def _preflight(self) -> dict[str, Any]:
        if has_validation_split(self.sweep.experiment):
            write_split_lists(self.sweep.experiment, self.sweep.folder / SPLIT)
        return self.plan

    def _search(self) -> dict[str, Any]:
        budget_tracker = self._budget_tracker
        trials = budget_tracker.trials
        require_gpus_for_gpu_hours(self.sweep, trials)
        source = TrialSource(self.sweep, self.journal, self.rungs, trials.per_run, budget_tracker)
        self._run(source, trials)
        states = [trial.state for trial in self.journal.state.trials]
        counts = {name: states.count(name) for name in ("finished", "paused", "stopped", "failed")}
        ended_by, budget = source.end_reason(), self.sweep.file.budget.model_dump(mode="json")
        return counts | {"ended_by": ended_by, "budget": budget, "target": self.sweep.file.target}

    @cached_property
    def _budget_tracker(self) -> BudgetTracker:
        """Tracker of the sweep's budget, with all past events."""
        trials = resolve_stage_resources(self.sweep, self.sweep.file.resources.workers)
        refits = resolve_stage_resources(self.sweep, self.sweep.file.resources.refit_workers)
        probed = EpochTiming(**self.journal.state.stages["preflight"]["timing"])
        budget_tracker = BudgetTracker(self.sweep, trials, refits, probed)
        budget_tracker.forecaster = self.view.forecaster  # one model per ended trial for both
        for event in read_events(self.journal.path):
            budget_tracker.apply(event, self.journal.state)
        self.journal.listeners.append(budget_tracker.apply)
        return budget_tracker

    @property
    def rungs(self) -> Rungs:
        """ASHA's rungs as the sweep began, also in another space: the scores at a rung stay comparable."""
        preflight = self.journal.state.stages["preflight"]
        return Rungs(tuple(preflight["rungs"]), preflight["rung_warmup"])

    def _confirm(self) -> dict[str, Any]:
        read_missing_champion(self.sweep, self.journal)
        limit, trials = RepeatLimit(self.journal, self._budget_tracker), self._budget_tracker.trials
        for source in confirm_sources(self.sweep, self.journal, limit, trials.per_run):
            self._run(source, trials)
        budget = self.sweep.file.budget.model_dump(mode="json")
        result = self._score("confirm", choose_winner)
        return result | {"ended_by": limit.ended_by or result["race_ended_by"], "budget": budget}

    def _refit(self) -> dict[str, Any]:
        resources = resolve_stage_resources(self.sweep, self.sweep.file.resources.refit_workers)
        source = make_refit_runs(self.sweep, self.journal, resources.per_run)
        self._run(source, resources)
        return {run: self.journal.state.runs[run].state for run in source.runs}

    # The last stages import all of timm, for which a search does not wait.

    def _export(self) -> dict[str, Any]:
        from reid_tune.sweep.stages.export import export_finalists

        return self._score("export", export_finalists)

    def _test(self) -> dict[str, Any]:
        from reid_tune.sweep.stages.test_set import evaluate_finalists

        return self._score("test", evaluate_finalists)

    def _register(self) -> dict[str, Any]:
        from reid_tune.sweep.stages.register import register

        return register(self.sweep, self.journal)

    def _score(self, name: str, stage: StageFunction) -> dict[str, Any]:
        placement = find_placement(self.sweep, self.sweep.file.resources.workers)
        return run_stage_on_gpu(name, stage, self.sweep, self.journal, placement)

    def _run(self, source: RunSource, resources: StageResources) -> None:
        with quick_imports():
            from reid_tune.execution.tune_runner import run_all

        timeout = 60 * self.sweep.file.resources.timeout_minutes
        workers, scratch = resources.per_run.workers, self.sweep.folder / "ray"
        remote = self.sweep.remote / "ray" if self.sweep.remote else None
        run_all(source, lambda: find_capacity(self.sweep, workers), workers, scratch, timeout, remote)
