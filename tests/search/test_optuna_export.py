import sqlite3
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from reid_tune.errors import InfrastructureError, InputError
from reid_tune.journal.event_log import EVENTS, read_events
from reid_tune.journal.events import EpochReported, RunEnded, RunSuggested, WorkerStarted
from reid_tune.journal.state import SweepState, replay, trial_run
from reid_tune.search.optuna_export import export_study, study_address
from reid_tune.search.study_columns import StudyColumns
from reid_tune.search_space.load import SweepConfig

from ..helpers.events import attempt_started, write_events
from ..helpers.finished_sweep import simulate
from ..helpers.search_spaces import make_space
from ..helpers.simulated_search import CONDITIONAL, MARGIN, NAME, RATE

TRIALS = 16
STEPS = "train.optim.lr_steps"
DISTRIBUTIONS = {
    NAME: CategoricalDistribution(["Adam", "AdamW", "SGD"]),
    # The hull of both ranges; the spec's value is inside of it.
    RATE: FloatDistribution(1e-4, 1e-1, log=True),
    "model.no_margin": CategoricalDistribution([True, False]),
    MARGIN: FloatDistribution(0.1, 0.6, step=0.05),
    # The spec has [40, 70], which is outside of the ranges.
    f"{STEPS}[0]": IntDistribution(2, 40),
    f"{STEPS}[1]": IntDistribution(4, 70),
}
STATES = {"finished": "COMPLETE", "stopped": "PRUNED", "failed": "FAIL", "running": "RUNNING"}


def finished_sweep(folder: Path, **sections: Any) -> SweepConfig:
    """A sweep with trials of all states; the last one runs."""
    sections = CONDITIONAL | {"scheduler": {"reduction_factor": 2}} | sections
    sweep = simulate(folder, until="confirm", sections={"budget": {"trials": TRIALS}, **sections})
    run, costs = trial_run(TRIALS), dict.fromkeys(sweep.file.costs, 1.5)
    running = [
        RunSuggested(run=run, parameters={NAME: "SGD", RATE: 0.5}, origin="user", costs=costs),
        attempt_started(run=run),
        EpochReported(run=run, epoch=1, metrics={"mAP": 0.25}),
        EpochReported(run=run, epoch=2, metrics={"loss": 0.25}),
    ]
    write_events(sweep.folder / EVENTS, running)
    return sweep


def open_study(path: Path) -> optuna.Study:
    storage = f"sqlite:///{path}" if path.suffix == ".db" else JournalStorage(JournalFileBackend(str(path)))
    (summary,) = optuna.get_all_study_summaries(storage)
    return optuna.load_study(study_name=summary.study_name, storage=storage)


def expected_parameters(state: SweepState, sweep: SweepConfig, run: str) -> dict[str, Any]:
    """The trial's values with those of the spec, lists by their elements."""
    parameters = state.runs[run].parameters
    values = {key: sweep.space.base[key] for key in sweep.space.active_branches(parameters)} | parameters
    steps = values.pop(STEPS)
    parameters = {key: value for key, value in values.items() if key in DISTRIBUTIONS}
    return parameters | {f"{STEPS}[{index}]": step for index, step in enumerate(steps)}


@pytest.mark.parametrize("file", ["study.log", "a folder/with ? and %41 #.db"])
@pytest.mark.parametrize("costs", [[], ["gflops", "parameters"]])
def test_a_study_has_everything_of_the_log(tmp_path: Path, file: str, costs: list[str]) -> None:
    sweep = finished_sweep(tmp_path, objective=[{"metric": name} for name in ["mAP", *costs]])
    path = tmp_path / file
    assert export_study(sweep.folder, path) == TRIALS + 1
    assert [entry.name for entry in path.parent.iterdir() if entry.name.startswith(("." + path.name, path.name))] == [
        path.name
    ]
    copy = path.rename(tmp_path / f"plain{path.suffix}")  # Optuna's own addresses have no such names.
    study, state = open_study(copy), replay(read_events(sweep.folder / EVENTS))
    assert (study.study_name, study.metric_names) == ("simulated", ["mAP", *costs])
    assert [direction.name for direction in study.directions] == ["MAXIMIZE"] + ["MINIMIZE"] * len(costs)
    assert study.user_attrs["space"] == sweep.space.as_entries()
    assert study.user_attrs["winner"] == state.stages["confirm"]["winner"]
    assert {trial.state for trial in state.trials} == STATES.keys()
    repeats = {row["number"]: row for row in state.stages["confirm"]["trials"]}
    for ours, trial in zip(state.trials, study.trials, strict=True):
        assert (trial.number, trial.state.name) == (ours.number, STATES[ours.state])
        assert trial.params == expected_parameters(state, sweep, ours.name)
        names = set(trial.params) - {RATE}
        assert {name: trial.distributions[name] for name in names} == {name: DISTRIBUTIONS[name] for name in names}
        assert trial.distributions[RATE] == FloatDistribution(1e-4, 0.5, log=True)  # That of the user.
        scores = {epoch: metrics["mAP"] for epoch, metrics in ours.epochs.items() if "mAP" in metrics}
        assert trial.intermediate_values == scores
        objectives = [ours.last("mAP"), *(ours.costs[name] for name in costs)]
        assert trial.values == (objectives if ours.state == "finished" else None)
        assert trial.datetime_start == datetime.fromtimestamp(ours.started)
        assert trial.datetime_complete == (None if ours.state == "running" else datetime.fromtimestamp(ours.ended))
        broken = sweep.space.broken_constraints(ours.parameters)
        assert trial.constraints == {text.text: 1.0 if text in broken else -1.0 for text in sweep.space.constraints}
        attributes = trial.user_attrs
        assert [attributes.get(name, "") for name in ("origin", "reason", "failure")] == [
            ours.origin,
            ours.reason,
            ours.failure,
        ]
        assert (attributes["epochs"], attributes["attempts"]) == (ours.epoch, ours.attempts)
        assert {name: attributes[name] for name in costs} == ours.costs
        assert attributes["folder"] == str(sweep.folder / ours.name)
        row = repeats.get(ours.number, {})
        assert (attributes.get("repeats"), attributes.get("mean_of_repeats")) == (row.get("values"), row.get("mean"))
    # The spec breaks a constraint.
    assert study.trials[0].constraints[CONDITIONAL["constraints"][1]] == 1.0
    # The initial point of the helper has a key that is not in this space.
    assert study.trials[1].user_attrs["outside_the_space"] == {"train.optim.warmup_iters": 1}


def test_constraints_on_costs_have_columns(tmp_path: Path) -> None:
    constraints = ["gflops <= 50", "parameters < 1000000000"]
    sweep = simulate(tmp_path, trials=2, until="search", sections={"constraints": constraints})
    export_study(sweep.folder, tmp_path / "study.log")
    for trial in open_study(tmp_path / "study.log").trials:
        assert trial.constraints == dict.fromkeys(constraints, -1.0)


def test_optuna_continues_an_exported_study(tmp_path: Path) -> None:
    path = tmp_path / "study.log"
    export_study(finished_sweep(tmp_path).folder, path)
    study = open_study(path)
    study.sampler = optuna.samplers.TPESampler(multivariate=True, seed=1)
    study.optimize(lambda trial: trial.suggest_float(RATE, 1e-3, 1e-1, log=True), n_trials=1)
    assert study.trials[-1].state == TrialState.COMPLETE
    assert set(optuna.importance.get_param_importances(study)) >= {RATE, NAME}


def test_a_file_that_exists_is_refused_and_kept(tmp_path: Path) -> None:
    sweep = finished_sweep(tmp_path)
    path = tmp_path / "study.db"
    path.write_text("mine")
    with pytest.raises(InputError, match="study.db exists already: name a new file, or remove this one"):
        export_study(sweep.folder, path)
    assert path.read_text() == "mine"


@pytest.mark.parametrize("pages", [5, 29])  # In the tables, in the trials.
def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pages: int) -> None:
    def connect(path: Path) -> sqlite3.Connection:
        connection = sqlite3.connect(path)
        connection.execute(f"PRAGMA max_page_count = {pages}")  # SQLite's own error of a full disk.
        return connection

    monkeypatch.setattr("reid_tune.search.optuna_export._connect", connect)
    monkeypatch.setattr("time.sleep", lambda _: None)  # Optuna tries four times.
    folder = finished_sweep(tmp_path).folder
    path = tmp_path / "new" / "study.db"
    with pytest.raises(InfrastructureError, match="^cannot write .*study.db: database or disk is full; check the disk"):
        export_study(folder, path)
    assert not list(path.parent.iterdir())


def test_a_finished_trial_without_a_value_counts_as_failed(tmp_path: Path) -> None:
    sweep = finished_sweep(tmp_path)
    events = read_events(sweep.folder / EVENTS)
    run = trial_run(TRIALS + 1)
    more = [RunSuggested(run=run, parameters={}), RunEnded(run=run, state="finished", epoch=0)]
    write_events(tmp_path / "copy" / EVENTS, [*events, *more])
    export_study(tmp_path / "copy", tmp_path / "study.log")
    assert open_study(tmp_path / "study.log").trials[-1].state == TrialState.FAIL


def test_hours_are_those_of_all_attempts(tmp_path: Path) -> None:
    sweep = finished_sweep(tmp_path)
    events = read_events(sweep.folder / EVENTS)
    run, start = trial_run(0), events[0].time
    end = next(event for event in events if isinstance(event, RunEnded) and event.run == run)
    events = [replace(event, time=start) if isinstance(event, WorkerStarted) else event for event in events]
    later = [replace(event, time=start + 7200) if event == end else event for event in events]
    write_events(tmp_path / "copy" / EVENTS, later)
    export_study(tmp_path / "copy", tmp_path / "study.log")
    assert open_study(tmp_path / "study.log").trials[0].user_attrs["hours"] == 2


WARMUP, PATIENCE = "train.optim.warmup_iters", "train.optim.plateau_patience"


@pytest.mark.parametrize(
    ("space", "configurations", "expected"),
    [
        ({RATE: {"loguniform": [1e-4, 1e-2]}}, [{RATE: 1e-3}], {RATE: FloatDistribution(1e-4, 1e-2, log=True)}),
        ({WARMUP: {"int": [5, 9]}}, [{WARMUP: 7}, {WARMUP: 2}], {WARMUP: IntDistribution(2, 9)}),
        ({WARMUP: {"quniform": [4, 8, 2]}}, [{WARMUP: 6}], {WARMUP: IntDistribution(4, 8, step=2)}),
        ({WARMUP: {"quniform": [4, 8, 2]}}, [{WARMUP: 5}], {WARMUP: IntDistribution(4, 8)}),
        ({MARGIN: {"quniform": [0.1, 0.4, 0.1]}}, [{MARGIN: 0.3}], {MARGIN: FloatDistribution(0.1, 0.4, step=0.1)}),
        ({MARGIN: {"quniform": [0.1, 0.4, 0.1]}}, [{MARGIN: 0.25}], {MARGIN: FloatDistribution(0.1, 0.4)}),
        (
            {NAME: {"choice": ["Adam", "SGD"]}},
            [{NAME: "AdamW"}],
            {NAME: CategoricalDistribution(["Adam", "SGD", "AdamW"])},
        ),
        (
            {NAME: {"value": "SGD"}, WARMUP: {"int": [1, 2]}},
            [{NAME: "SGD", WARMUP: 2}],
            {WARMUP: IntDistribution(1, 2)},
        ),
        (
            {
                NAME: {"choice": ["Adam", "SGD"]},
                RATE: [
                    {"value": 0.01, "when": {NAME: "SGD"}},
                    {"loguniform": [1e-4, 1e-3], "when": {NAME: "Adam"}},
                ],
                WARMUP: [{"choice": [1, 2], "when": {NAME: "SGD"}}, {"int": [5, 9], "when": {NAME: "Adam"}}],
            },
            [{NAME: "SGD", RATE: 0.01, WARMUP: 2}, {NAME: "Adam", RATE: 1e-4, WARMUP: 9}],
            {
                NAME: CategoricalDistribution(["Adam", "SGD"]),
                RATE: FloatDistribution(1e-4, 0.01, log=True),
                WARMUP: IntDistribution(1, 9),
            },
        ),
        (
            {
                NAME: {"choice": ["Adam", "SGD"]},
                PATIENCE: [{"value": None, "when": {NAME: "SGD"}}, {"int": [1, 2], "when": {NAME: "Adam"}}],
            },
            [{NAME: "SGD", PATIENCE: None}, {NAME: "Adam", PATIENCE: 2}],
            {NAME: CategoricalDistribution(["Adam", "SGD"]), PATIENCE: CategoricalDistribution([None, 1, 2])},
        ),
        ({NAME: {"value": "SGD"}}, [{}, {NAME: "SGD"}], {NAME: CategoricalDistribution(["SGD", "Adam"])}),
        (
            {STEPS: {"choice": [[40, 70], [20]]}},
            [{STEPS: [20]}],
            {STEPS: CategoricalDistribution(["[40, 70]", "[20]"])},
        ),
        (
            {STEPS: {"list": [{"int": [1, 2]}, {"choice": [3, 4]}]}},
            [{STEPS: [1, 3]}, {STEPS: [1, 2, 3]}],
            {f"{STEPS}[0]": IntDistribution(1, 2), f"{STEPS}[1]": CategoricalDistribution([3, 4])},
        ),
    ],
)
def test_distributions_contain_ranges_and_values(
    space: dict[str, Any], configurations: list[dict[str, Any]], expected: dict[str, Any]
) -> None:
    columns = StudyColumns(make_space(space), configurations)
    assert columns.distributions == expected
    for configuration in configurations:
        values, _ = columns.values(configuration)
        optuna.trial.create_trial(value=0.0, params=values, distributions={key: expected[key] for key in values})


def test_a_list_of_another_length_is_outside() -> None:
    columns = StudyColumns(make_space({STEPS: {"list": [{"int": [1, 2]}, {"int": [3, 4]}]}}), [])
    assert columns.values({STEPS: [1, 4]}) == ({f"{STEPS}[0]": 1, f"{STEPS}[1]": 4}, {})
    assert columns.values({STEPS: [1, 2, 3]}) == ({}, {STEPS: [1, 2, 3]})


def test_the_address_of_a_study() -> None:
    assert study_address(Path("a.db")) == "sqlite:///a.db" and study_address(Path("my study.log")) == "'my study.log'"
