"""Searches that are compared: the driver of reid-tune, Optuna and Ray Tune as their documentation uses them."""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal, Protocol

import optuna
import yaml
from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, SuccessiveHalvingPruner
from optuna.samplers import BaseSampler, GPSampler, TPESampler
from optuna.trial import TrialState
from ray.tune.schedulers import AsyncHyperBandScheduler, TrialScheduler
from ray.tune.search.optuna import OptunaSearch as RayOptunaSearch
from search_table import BACKBONE, BASE, EPOCHS

from reid_tune.config.experiment import unflatten
from reid_tune.journal.events import StageDone
from reid_tune.journal.journal import Journal
from reid_tune.search.asha import Rungs, rung_epochs
from reid_tune.search_space.load import SweepConfig, load_sweep
from reid_tune.sweep.resume import make_header
from reid_tune.sweep.stages.search import TrialSource

__all__ = ["METHODS", "Search", "make_sweep"]

LEVELS = rung_epochs(1 + math.ceil(EPOCHS / 10), 3, EPOCHS)
_TRIALS = 400  # more than any budget of epochs allows


class Search(Protocol):
    """A search whose trials are trained by the caller."""

    def ask(self) -> tuple[Any, Mapping[str, Any], int]:
        """Return a trial, the values of all searched keys, and the epoch with which it begins or continues, from 1."""

    def report(self, trial: Any, epoch: int, score: float) -> bool:
        """Record a score, NaN if the training has diverged; return whether the trial continues."""

    def close(self) -> None:
        """End the search."""


class DriverSearch:
    """The driver's search, with the event log.

    Args:
        sweep: Sweep to search.
        has_asha: Whether ASHA stops trials.
        learned: Earlier sweeps to learn from, as the stage `preflight` records them.
    """

    def __init__(self, sweep: SweepConfig, *, has_asha: bool, learned: Sequence[Mapping[str, Any]] = ()) -> None:
        self._journal = Journal(sweep.folder)
        self._journal.__enter__()
        self._journal.emit(make_header(sweep))
        self._journal.emit(StageDone(stage="preflight", result={"learned": list(learned)}))
        self._source = TrialSource(sweep, self._journal, Rungs(LEVELS if has_asha else ()))

    def ask(self) -> tuple[Any, Mapping[str, Any], int]:
        attempt = self._source.next_attempt()
        assert attempt is not None
        epoch = self._journal.state.runs[attempt.run].epoch + 1
        return attempt.run, attempt.experiment.parameters(), epoch

    def report(self, trial: Any, epoch: int, score: float) -> bool:
        return self._source.report(trial, {"epoch": epoch, "mAP": score})

    def close(self) -> None:
        self._journal.__exit__(None, None, None)


class OptunaSearch:
    """Optuna's ask and tell interface with the same space, trial 0 enqueued.

    Args:
        sweep: Sweep with the space.
        sampler: Sampler.
        pruner: Pruner.
    """

    def __init__(self, sweep: SweepConfig, sampler: BaseSampler, pruner: BasePruner) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._space = sweep.space
        self._study = optuna.create_study(direction="maximize", sampler=sampler, pruner=pruner, study_name="benchmark")
        encoded = self._space.encode({})
        if encoded is not None:
            self._study.enqueue_trial(encoded[0])

    def ask(self) -> tuple[Any, Mapping[str, Any], int]:
        trial = self._study.ask()
        return trial, self._space.base | self._space.draw(trial._suggest), 1

    def report(self, trial: Any, epoch: int, score: float) -> bool:
        if not math.isfinite(score):
            self._study.tell(trial, state=TrialState.PRUNED if epoch > 1 else TrialState.FAIL)
            return False
        trial.report(score, epoch)
        if epoch == EPOCHS:
            self._study.tell(trial, score)
            return False
        if trial.should_prune():
            self._study.tell(trial, state=TrialState.PRUNED)
            return False
        return True

    def close(self) -> None:
        pass


class RaySearch:
    """Ray Tune's OptunaSearch and ASHAScheduler, called in the order in which Tune's controller calls them.

    Args:
        sweep: Sweep with the space.
        seed: Seed of the sampler.
    """

    def __init__(self, sweep: SweepConfig, seed: int) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        space = sweep.space
        encoded = space.encode({})
        self._search = RayOptunaSearch(
            lambda trial: space.base | space.draw(trial._suggest),
            metric="mAP",
            mode="max",
            seed=seed,
            points_to_evaluate=[encoded[0]] if encoded is not None else None,
        )
        self._scheduler = AsyncHyperBandScheduler(
            metric="mAP", mode="max", max_t=EPOCHS, grace_period=LEVELS[0], reduction_factor=3
        )
        self._started = 0

    def ask(self) -> tuple[Any, Mapping[str, Any], int]:
        trial = SimpleNamespace(trial_id=str(self._started))
        self._started += 1
        values = self._search.suggest(trial.trial_id)
        assert values is not None
        self._scheduler.on_trial_add(None, trial)
        return trial, values, 1

    def report(self, trial: Any, epoch: int, score: float) -> bool:
        if not math.isfinite(score):
            self._scheduler.on_trial_error(None, trial)
            self._search.on_trial_complete(trial.trial_id, error=True)
            return False
        result = {"training_iteration": epoch, "mAP": score}
        if self._scheduler.on_trial_result(None, trial, result) == TrialScheduler.STOP:
            self._scheduler.on_trial_complete(None, trial, result)
            self._search.on_trial_complete(trial.trial_id, result=result)
            return False
        self._search.on_trial_result(trial.trial_id, result)
        return True

    def close(self) -> None:
        pass


def make_sweep(
    folder: Path, space: Mapping[str, Any], sampler: str, seed: int, mode: Literal["stop", "promote"] = "stop"
) -> SweepConfig:
    """Return the sweep of a method and seed; for `mode` see `SchedulerSettings`."""
    tree = unflatten(BASE | {"model.backbone": BACKBONE, "dataset.train_dataset_dir": "not-read"})
    (folder / "spec.yaml").write_text(yaml.safe_dump(_plain(tree)))
    content = {
        "name": "search-quality",
        "spec": "spec.yaml",
        "space": space,
        "search": {"sampler": sampler, "seed": seed},
        "scheduler": {"mode": mode},
        "budget": {"trials": _TRIALS},
        "storage": str(folder),
        "registry": {"model": "none"},
    }
    (folder / "sweep.yaml").write_text(yaml.safe_dump(content))
    return load_sweep(folder / "sweep.yaml")


def _plain(value: Any) -> Any:
    """Return a tree with lists instead of tuples, which YAML has not."""
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, list | tuple) else value


def _driver(
    sampler: str, mode: Literal["stop", "promote"] = "stop", *, has_asha: bool = True
) -> Callable[[Path, Mapping[str, Any], int], Search]:
    return lambda folder, space, seed: DriverSearch(make_sweep(folder, space, sampler, seed, mode), has_asha=has_asha)


def _optuna(
    make_sampler: Callable[[int], BaseSampler], make_pruner: Callable[[], BasePruner]
) -> Callable[[Path, Mapping[str, Any], int], Search]:
    def make(folder: Path, space: Mapping[str, Any], seed: int) -> Search:
        return OptunaSearch(make_sweep(folder, space, "tpe", seed), make_sampler(seed), make_pruner())

    return make


def _halving() -> BasePruner:
    return SuccessiveHalvingPruner(min_resource=LEVELS[0], reduction_factor=3)


def _multivariate(seed: int, *, group: bool = False) -> BaseSampler:
    return TPESampler(seed=seed, multivariate=True, group=group, constant_liar=True, warn_independent_sampling=False)


# Functions that start a search from a folder, a space and a seed, by name; the others are compared with the first.
METHODS: dict[str, Callable[[Path, Mapping[str, Any], int], Search]] = {
    "auto + asha": _driver("auto"),
    "auto + asha, promote": _driver("auto", "promote"),
    "tpe + asha": _driver("tpe"),
    "random + asha": _driver("random"),
    "random + asha, promote": _driver("random", "promote"),
    "random": _driver("random", has_asha=False),
    "Optuna TPE + halving": _optuna(_multivariate, _halving),
    "Optuna TPE, grouped + halving": _optuna(lambda seed: _multivariate(seed, group=True), _halving),
    "Optuna TPE + Hyperband": _optuna(
        _multivariate, lambda: HyperbandPruner(min_resource=LEVELS[0], max_resource=EPOCHS, reduction_factor=3)
    ),
    "Optuna's default": _optuna(lambda seed: TPESampler(seed=seed), MedianPruner),
    "Optuna GP + halving": _optuna(lambda seed: GPSampler(seed=seed, warn_independent_sampling=False), _halving),
    "Ray Tune OptunaSearch + ASHA": lambda folder, space, seed: RaySearch(make_sweep(folder, space, "tpe", seed), seed),
}
