"""The sections of a search-space file."""

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, get_args

from pydantic import Discriminator, Field, Tag, field_validator, model_validator

from reid_tune.config.base import Section
from reid_tune.search_space.alternatives import expecting
from reid_tune.search_space.resources import Resources

__all__ = ["COST_METRICS", "UNION_TAGS", "Budget", "Objective", "ScoreName", "SweepFile"]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
ScoreName = Literal["mAP", "mINP", "Rank-1", "Rank-5", "Rank-10"]
COST_METRICS = ("gflops", "parameters", "embedding_dim")  # computed from the spec, independent of the machine
_DEFAULT_PAUSED = 8
_OBJECTIVE_FORMS = ("one objective", "several objectives")
_PATIENCE_FORMS = ("number of trials", "expected gain")
_NAMES_FORMS = ("one name", "list of names")
UNION_TAGS = (*_OBJECTIVE_FORMS, *_PATIENCE_FORMS, *_NAMES_FORMS)  # in the locations of pydantic's errors


class Objective(Section):
    metric: Literal["mAP", "mINP", "Rank-1", "Rank-5", "Rank-10", "gflops", "parameters", "embedding_dim"] = Field(
        "mAP", description="A plain score on the validation split, or a cost that follows from the spec alone."
    )
    mode: Literal["max", "min", "auto"] = Field("auto", description="Scores are max, costs min.")

    @model_validator(mode="after")
    def _check(self) -> "Objective":
        if self.mode not in ("auto", "min" if self.metric in COST_METRICS else "max"):
            raise ValueError(f"{self.metric} cannot be {self.mode}: scores are max, costs min")
        return self


def _objective_form(value: Any) -> str:
    return _OBJECTIVE_FORMS[isinstance(value, list | tuple)]


def _names_form(value: Any) -> str:
    return _NAMES_FORMS[isinstance(value, list | tuple)]


class SearchSettings(Section):
    sampler: Literal["auto", "tpe", "random", "grid"] = Field(
        "auto", description="auto: a Gaussian process that learns from all rungs; tpe: Optuna's; random; grid."
    )
    seed: int = Field(1234, ge=0)
    start_from: Annotated[
        str | tuple[str | dict[str, Any], ...],
        expecting("the name of a sweep, or a list of names and of {key: value}"),
    ] = Field(
        (),
        description="Warm starts: names of sweeps in the same storage, whose best trials are used, or {key: value}.",
    )
    learn_from: Annotated[
        Annotated[str, Tag(_NAMES_FORMS[0])] | Annotated[tuple[str, ...], Tag(_NAMES_FORMS[1])],
        Discriminator(_names_form),
    ] = Field((), description="Names of sweeps in the same storage whose trials the sampler auto learns from.")


class SchedulerSettings(Section):
    name: Literal["asha", "none"] = "asha"
    mode: Literal["stop", "promote"] = Field(
        "stop",
        description="What happens at a rung. stop: trials below it are stopped for good; promote: all but the best "
        "pause, and continue when further trials make room.",
    )
    grace_period: Annotated[int | Literal["auto"], expecting("a whole number of epochs or auto")] = Field(
        "auto", description="Epochs before a trial may be stopped or paused."
    )
    reduction_factor: int = Field(3, ge=2, description="One in this many trials continues at each rung.")

    @model_validator(mode="after")
    def _check(self) -> "SchedulerSettings":
        if self.mode == "promote" and self.name == "none":
            raise ValueError("mode promote is one of asha: set name: asha, or leave mode out")
        return self


class GainPatience(Section):
    min_gain: float = Field(..., gt=0, description="Points of the metric, in %.")


def _patience_form(value: Any) -> str:
    return _PATIENCE_FORMS[isinstance(value, Mapping | GainPatience)]


class Budget(Section):
    trials: int = Field(
        0, ge=1, description="Trials, including trial 0; by default 32, and all configurations of a grid."
    )
    hours: float | None = Field(None, gt=0, description="Hours in which a driver runs, over all stages.")
    gpu_hours: float | None = Field(None, gt=0, description="GPU-hours that runs hold, over all stages.")
    cpu_hours: float | None = Field(None, gt=0, description="CPU-hours that runs hold, over all stages.")
    patience: (
        Annotated[
            Annotated[int, Field(ge=1), Tag(_PATIENCE_FORMS[0])] | Annotated[GainPatience, Tag(_PATIENCE_FORMS[1])],
            Discriminator(_patience_form),
        ]
        | None
    ) = Field(
        None,
        description="Ended trials without a better one after which no further trial begins; or {min_gain: 0.3}, "
        "which ends the search when a further trial is expected to gain less than that many points of the metric.",
    )

    @property
    def min_gain(self) -> float | None:
        """The least expected gain of a further trial in points, None without a limit."""
        return self.patience.min_gain if isinstance(self.patience, GainPatience) else None


class Confirm(Section):
    candidates: int = Field(6, ge=1, description="Best trials of the race, in which one is selected.")
    repeats: int = Field(5, ge=1, description="Repeats of the selected trial and of trial 0, which compare the two.")
    margin: float = Field(0.5, ge=0, description="Points of the metric that a cheaper trial may be expected to lose.")


class Refit(Section):
    seeds: int = Field(1, ge=1, description="Refits of each finalist; the first is exported.")


class Registry(Section):
    model: str = Field("", min_length=1, description="Name of the registered model; by default that of the sweep.")
    alias: str = Field("champion", min_length=1)


class SweepFile(Section):
    name: str = Field(..., description="Name of the sweep and of its folder in `storage`.")
    spec: str = Field(..., min_length=1, description="Path of the experiment spec, relative to this file.")
    objective: Annotated[
        Annotated[Objective, Tag(_OBJECTIVE_FORMS[0])] | Annotated[tuple[Objective, ...], Tag(_OBJECTIVE_FORMS[1])],
        Discriminator(_objective_form),
    ] = Field(default_factory=Objective)
    space: dict[str, Any] = {}
    bundle: Any = Field(
        [], description="Keys whose values are chosen together: a list of {name, key: value or range}, or named lists."
    )
    constraints: list[str] = []
    search: SearchSettings = Field(default_factory=SearchSettings)
    scheduler: SchedulerSettings = Field(default_factory=SchedulerSettings)
    budget: Budget = Field(default_factory=Budget)
    target: dict[ScoreName, Annotated[float, Field(gt=0, le=1)]] = Field(
        {}, description="Scores as fractions; the search ends when a full-length trial reaches all of them."
    )
    confirm: Confirm = Field(default_factory=Confirm)
    refit: Refit = Field(default_factory=Refit)
    resources: Resources = Field(default_factory=Resources)
    keep: int = Field(3, ge=0, description="Best trials whose checkpoints are kept, in addition to trial 0.")
    keep_paused: int | None = Field(
        None, ge=0, description="Trials that may be paused at once, with their checkpoints; 8 by default."
    )
    storage: str = Field("runs", min_length=1)
    registry: Registry = Field(default_factory=Registry)

    @property
    def objectives(self) -> tuple[Objective, ...]:
        """All objectives. The first is a score; it alone decides which trials are confirmed and which one wins."""
        return (self.objective,) if isinstance(self.objective, Objective) else self.objective

    @property
    def metric(self) -> str:
        """The score of the first objective."""
        return self.objectives[0].metric

    @property
    def costs(self) -> tuple[str, ...]:
        """Names of the further objectives, which are costs."""
        return tuple(objective.metric for objective in self.objectives if objective.metric in COST_METRICS)

    @property
    def max_paused(self) -> int:
        """Number of trials that may be paused at once."""
        return _DEFAULT_PAUSED if self.keep_paused is None else self.keep_paused

    @field_validator("target", mode="before")
    @classmethod
    def _check_target(cls, target: Any) -> Any:
        unknown = [name for name in target if name not in get_args(ScoreName)] if isinstance(target, Mapping) else []
        if unknown:
            raise ValueError(f"{unknown[0]!r} is not a score: use {', '.join(get_args(ScoreName))}")
        values = target.items() if isinstance(target, Mapping) else ()
        for name, value in ((name, value) for name, value in values if isinstance(value, int | float) and value > 1):
            raise ValueError(f"{name} = {value:g}: scores are fractions, such as 0.85 for 85 %")
        return target

    @field_validator("name")
    @classmethod
    def _check_name(cls, name: str) -> str:
        if not _NAME.fullmatch(name):
            raise ValueError("use letters, digits, '.', '_' and '-', 64 at most, no path")
        return name

    @model_validator(mode="after")
    def _check(self) -> "SweepFile":
        names = [objective.metric for objective in self.objectives]
        if (
            not names
            or names[0] in COST_METRICS
            or any(name not in COST_METRICS for name in names[1:])
            or len(set(names)) < len(names)
        ):
            raise ValueError(
                f"objective = {names}: the first must be a score (mAP, mINP, Rank-k), the others costs "
                f"({', '.join(COST_METRICS)}), each once"
            )
        if self.scheduler.mode == "promote" and not self.max_paused:
            raise ValueError("keep_paused = 0: scheduler.mode promote continues paused trials; use 1 or more")
        has_hours = any((self.budget.hours, self.budget.gpu_hours, self.budget.cpu_hours))
        if self.keep_paused is not None and self.scheduler.name == "none" and not has_hours:
            raise ValueError(
                f"keep_paused = {self.keep_paused}: nothing is paused with scheduler.name none and no limit on hours; "
                "leave it out, or set budget.hours"
            )
        return self
