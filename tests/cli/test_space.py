"""`reid-tune space show`: ranges, conditions, constraints and the first trials, without data or a file written."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from reid_tune import cli
from reid_tune.search.study import Study
from reid_tune.search_space.load import load_sweep

Run = Callable[..., tuple[int, str, str]]

NAME, RATE, SOFT = "train.optim.name", "train.optim.base_lr", "model.no_margin"
SPACE: dict[str, Any] = {
    NAME: {"choice": ["SGD", "AdamW"]},
    RATE: [
        {"loguniform": [1e-3, 1e-1], "when": {NAME: "SGD"}},
        {"loguniform": [1e-5, 1e-3], "when": {NAME: "AdamW"}},
    ],
    SOFT: {"choice": [True, False]},
    "train.optim.triplet_loss_margin": {"quniform": [0.1, 0.5, 0.1], "when": {SOFT: False}},
    "train.optim.gamma": {"value": 0.2},
}
CONSTRAINTS = [f"{RATE} < 0.05 or model.feat_dim in [128, 256]"]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """`space show` of a file in an empty folder; its status, stdout and stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("reid_tune.search.space_check.SAMPLE_COUNT", 100)
    Path("spec.yaml").write_text("dataset: {train_dataset_dir: nowhere}")
    tree = {
        "name": "x",
        "spec": "spec.yaml",
        "space": SPACE,
        "constraints": CONSTRAINTS,
        "budget": {"trials": 40},
        "registry": {"model": "m"},
    }

    def call(*arguments: str, **values: Any) -> tuple[int, str, str]:
        Path("sweep.yaml").write_text(yaml.safe_dump(tree | values, sort_keys=False))
        monkeypatch.setattr(sys, "argv", ["reid-tune", "space", "show", "sweep.yaml", *arguments])
        with pytest.raises(SystemExit) as end:
            cli.main()
        assert {path.name for path in tmp_path.iterdir()} == {"spec.yaml", "sweep.yaml"}
        return int(end.value.code or 0), *capsys.readouterr()

    return call


def test_the_table_has_ranges_conditions_constraints_and_trials(run: Run) -> None:
    status, out, err = run("--samples", "3")
    assert (status, err) == (0, "")
    for part in ("choice [true, false]", "loguniform [1e-05, 0.001]", f"{NAME}: AdamW", "value 0.2", *CONSTRAINTS):
        assert part in out
    rows = [[cell.strip() for cell in line.strip("│").split("│")] for line in out.splitlines() if line.startswith("│")]
    trials = rows[-4:]
    assert [row[0] for row in trials] == ["0 (spec)", "1", "2", "3"]
    assert trials[0][1:] == ["Adam", "0.00035", "false", "0.3", "0.1"]
    for _, _, _, soft, margin, gamma in trials[1:]:
        assert (margin == "-") == (soft == "true") and gamma == "0.2"


def test_the_samples_are_the_first_trials_of_the_sweep(run: Run) -> None:
    status, out, _ = run("--samples", "9", "--format", "json")
    content = json.loads(out)
    assert (status, content["space"], content["constraints"]) == (0, SPACE, CONSTRAINTS)
    study = Study(load_sweep("sweep.yaml"))
    assert content["samples"] == [study.ask(f"trials/{number:04d}", number) for number in range(1, 10)]
    assert yaml.safe_load(run("--samples", "9", "--format", "yaml")[1]) == content
    other = json.loads(run("--samples", "9", "--format", "json", "sweep.search.seed=7", "train.num_epochs=3")[1])
    assert other["samples"] != content["samples"]


def test_a_grid_has_no_more_samples_than_trials(run: Run) -> None:
    space = {NAME: {"choice": ["SGD", "Adam", "AdamW"]}}
    for values, expected in (({}, ["SGD", "AdamW"]), ({"budget": {"trials": 2}}, ["SGD"])):
        out = run("--format", "json", **{"space": space, "constraints": [], "search": {"sampler": "grid"}} | values)[1]
        assert [sample[NAME] for sample in json.loads(out)["samples"]] == expected


def test_the_re_ranking_has_a_separate_table_with_its_number_of_settings(run: Run) -> None:
    reranking = {"re_ranking.k1": {"choice": [5, 10, 20]}, "re_ranking.lambda_value": {"value": 0.25}}
    values = {"space": SPACE | reranking, "constraints": [*CONSTRAINTS, "re_ranking.k1 > 5"]}
    status, out, err = run("--samples", "1", **values)
    assert (status, err) == (0, "")
    for part in ("re-ranking: 2 settings", "choice [5, 10, 20]", "value 0.25", "re_ranking.k1 > 5"):
        assert part in out
    content = json.loads(run("--format", "json", **values)[1])
    assert content["re_ranking"] == {"space": reranking, "constraints": ["re_ranking.k1 > 5"], "settings": 2}
    assert (content["space"], content["constraints"]) == (SPACE, CONSTRAINTS)
    assert all(set(sample) <= set(SPACE) for sample in content["samples"])


@pytest.mark.parametrize(
    ("values", "arguments", "part"),
    [
        ({"space": SPACE | {"train.optim.bas_lr": {"int": [1, 2]}}}, [], "did you mean train.optim.base_lr?"),
        (
            {"space": SPACE | {SOFT: {"choice": [True, False], "when": {NAME: "LAMB"}}}},
            [],
            "never has the value 'LAMB'",
        ),
        ({"constraints": ["train.optim.base_lr >"]}, [], "is not an expression"),
        ({"constraints": ["train.optim.base_lr > 1"]}, [], "only 0 of 100 random configurations satisfy all"),
        ({"constraints": ["1 / dataset.padding > 1"]}, ["dataset.padding=0"], "dataset.padding = 0: division by zero"),
        ({"space": SPACE | {"train.optim.momentum": {"uniform": [0, 0.5], "when": {NAME: "AdamW"}}}}, [], "no effect"),
        ({"space": {"dataset.num_instances": {"int": [4, 5]}}}, [], "is not a multiple of"),
        ({"space": SPACE | {"re_ranking.lambda_value": {"uniform": [0, 2]}}}, [], "lambda_value is"),
        ({}, ["sweep.search.sampler=grid"], "a grid has no continuous ranges"),
        ({}, ["train.num_epoch=3"], "unknown key train.num_epoch"),
    ],
)
def test_what_preflight_refuses_is_refused_here(
    run: Run, values: dict[str, Any], arguments: list[str], part: str
) -> None:
    status, out, err = run(*arguments, **values)
    assert (status, out) == (2, "")
    assert part in err and err.startswith("reid-tune: ") and err.count("\n") == 1
