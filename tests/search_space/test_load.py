import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from reid_tune.errors import InputError
from reid_tune.search.space_check import validate_space
from reid_tune.search_space.load import load_sweep
from reid_tune.search_space.range_syntax import parse_range
from reid_tune.search_space.ranges import RANGE_KINDS

from ..helpers.simulated_driver import SPACE, write_sweep, write_yaml

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("path", sorted((REPOSITORY / "search_spaces").glob("*.yaml")), ids=lambda path: path.stem)
def test_the_ready_sweeps_load(path: Path) -> None:
    sweep = load_sweep(path)
    parameters = [*sweep.space.parameters, *sweep.re_ranking.parameters]
    assert len(parameters) == len(sweep.file.space) > 0
    assert sweep.experiment.dataset.validation == "holdout"
    assert sweep.folder == Path("runs").absolute() / sweep.file.name
    assert path.read_text().startswith("# reid-tune ")


def test_what_is_not_written_has_a_default(tmp_path: Path) -> None:
    file = load_sweep(write_sweep(tmp_path)).file
    assert (file.metric, file.scheduler.name, file.scheduler.grace_period) == ("mAP", "asha", "auto")
    assert (file.resources.max_concurrent, file.resources.refit_workers) == (None, 1)
    assert file.registry.alias == "champion"


def test_overrides_of_the_spec_and_of_the_file(tmp_path: Path) -> None:
    overrides = [
        "train.num_epochs=9",
        "train.grad_clip=0.5",
        "sweep.name=other",
        "sweep.budget.trials=3",
        "sweep.resources.max_concurrent=2",
        "sweep.space.train.optim.base_lr={uniform: [0.1, 0.2]}",
    ]
    sweep = load_sweep(write_sweep(tmp_path), overrides)
    assert (sweep.experiment.train.num_epochs, sweep.experiment.train.clip_grad_norm) == (9, 0.5)
    assert (sweep.file.name, sweep.folder.name, sweep.file.budget.trials) == ("other", "other", 3)
    assert sweep.file.resources.max_concurrent == 2
    assert sweep.file.space == SPACE | {"train.optim.base_lr": {"uniform": [0.1, 0.2]}}


def test_paths_are_absolute_and_the_base_holds_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folders = {"train_dataset_dir": "train", "test_dataset_dir": "/test"}
    spec = {"dataset": folders | {"validation": "test"}, "train": {"num_epochs": 4, "checkpoint_interval": 1}}
    path = write_sweep(tmp_path / "deep", spec, storage="some/runs")
    sweep = load_sweep(path.relative_to(tmp_path))
    dataset = sweep.experiment.dataset
    assert dataset.train_dataset_dir == str(tmp_path / "train")
    assert (dataset.test_dataset_dir, dataset.query_dataset_dir) == ("/test", None)
    assert dataset.validation == "holdout"
    assert sweep.experiment.train.checkpoint_interval == 4
    assert sweep.folder == tmp_path / "some/runs/simulated"


@pytest.mark.parametrize(
    ("values", "parts"),
    [
        ({"name": "../elsewhere"}, ["name = '../elsewhere'", "no path"]),
        ({"name": "/tmp/x"}, ["no path"]),
        ({"name": "a\n"}, ["no path"]),
        ({"name": ".."}, ["no path"]),
        ({"name": "x" * 65}, ["64 at most"]),
        ({"nam": "x"}, ["unknown key nam"]),
        ({"storage": "x" * 300}, ["storage: it is too long for a path"]),
        ({"storage": "a\nb"}, ["storage: it has a line break"]),
        ({"spec": "x/" * 3000}, ["spec: it is too long for a path"]),
        ({"search": {"smapler": "tpe"}}, ["unknown key search.smapler"]),
        ({"search": {"sampler": "cmaes"}}, ["search.sampler = 'cmaes'", "'auto', 'tpe', 'random' or 'grid'"]),
        ({"search": {"learn_from": 5}}, ["sweep.yaml: search.learn_from = 5: should be a valid string."]),
        ({"search": {"learn_from": [5]}}, ["sweep.yaml: search.learn_from.0 = 5: should be a valid string."]),
        ({"budget": {"trials": None}}, ["budget.trials = None"]),
        ({"budget": {"trials": 0}}, ["budget.trials = 0", "greater than or equal to 1"]),
        ({"budget": {"trials": 9, "patience": 0}}, ["budget.patience = 0", "greater than or equal to 1"]),
        ({"budget": {"trials": 9, "patience": "soon"}}, ["budget.patience = 'soon'", "valid integer"]),
        ({"budget": {"trials": 9, "patience": {}}}, ["budget.patience.min_gain is missing"]),
        ({"budget": {"trials": 9, "patience": {"min_gain": 0}}}, ["budget.patience.min_gain = 0", "greater than 0"]),
        ({"budget": {"trials": 9, "patience": {"gain": 1}}}, ["unknown key budget.patience.gain"]),
        ({"registry": {"model": ""}}, ["registry.model = ''"]),
        ({"objective": {"metric": "accuracy"}}, ["objective.metric = 'accuracy'", "'mINP'"]),
        ({"scheduler": {"reduction_factor": 1}}, ["scheduler.reduction_factor = 1"]),
        ({"scheduler": {"grace_period": "soon"}}, ["scheduler.grace_period"]),
        ({"scheduler": {"mode": "pause"}}, ["scheduler.mode = 'pause'", "'stop' or 'promote'"]),
        (
            {"scheduler": {"name": "none", "mode": "promote"}},
            ["scheduler: mode promote is one of asha: set name"],
        ),
        ({"keep_paused": -1}, ["keep_paused = -1", "greater than or equal to 0"]),
        ({"keep_paused": 0, "scheduler": {"mode": "promote"}}, ["keep_paused = 0: scheduler.mode promote continues"]),
        (
            {"keep_paused": 2, "scheduler": {"name": "none"}},
            ["keep_paused = 2: nothing is paused with"],
        ),
        (
            {"objective": [{"metric": "mAP"}, {"metric": "mINP"}]},
            ["objective = ['mAP', 'mINP']: the first must"],
        ),
        ({"objective": {"metric": "gflops"}}, ["objective = ['gflops']: the first must be a score"]),
        ({"objective": []}, ["objective = []: the first must be a score"]),
        ({"objective": {"metric": "mAP", "mode": "min"}}, ["objective: mAP cannot be min: scores are max, costs min"]),
        ({"resources": {"workers": 2, "gpus_per_worker": 0.5}}, ["a fraction of a GPU is for runs with one worker"]),
        ({"resources": {"gpus_per_worker": 1.5}}, ["gpus_per_worker = 1.5: use 0, a fraction"]),
        ({"resources": {"gpus_per_worker": -1}}, ["gpus_per_worker = -1: use 0"]),
        ({"confirm": {"candidates": 0}}, ["confirm.candidates = 0", "greater than or equal to 1"]),
        ({"confirm": {"repeat": 3}}, ["unknown key confirm.repeat; did you mean confirm.repeats?"]),
        ({"budget": {"trials": 3, "hours": 0}}, ["budget.hours = 0"]),
        ({"constraints": "x < 1"}, ["constraints = 'x < 1'", "should be a valid list"]),
        ({"constraints": [3]}, ["constraints.0 = 3", "should be a valid string"]),
        ({"constraints": ["train.optim.gama < 1"]}, ["constraints: train.optim.gama < 1: ", "train.optim.gamma?"]),
        ({"search": {"sampler": "grid"}}, ["space.train.optim.base_lr", "a grid has no continuous ranges"]),
        ({"space": {"train.optim.gamma": {"uniform": [0, 1], "when": {}}}}, ["space.train.optim.gamma"]),
        ({"space": None}, ["space = None"]),
        ({"space": {}}, ["space is empty"]),
        ({"storage": "gs://bucket/prefix"}, ["storage = 'gs://bucket/prefix'", "write s3://BUCKET"]),
        ({"spec": "missing.yaml"}, ["cannot read", "missing.yaml"]),
    ],
)
def test_bad_files(tmp_path: Path, values: dict[str, Any], parts: list[str]) -> None:
    with pytest.raises(InputError) as caught:
        load_sweep(write_sweep(tmp_path, **values))
    for part in (str(tmp_path), *parts):
        assert part in str(caught.value)


def test_the_budget_pauses_trials_without_a_scheduler(tmp_path: Path) -> None:
    values = {"scheduler": {"name": "none"}, "keep_paused": 2, "budget": {"trials": 3, "cpu_hours": 1}}
    assert load_sweep(write_sweep(tmp_path, **values)).file.keep_paused == 2


@pytest.mark.parametrize("key", ["name", "spec", "space"])
def test_a_missing_section_is_named(tmp_path: Path, key: str) -> None:
    path = write_sweep(tmp_path)
    write_yaml(path, {name: value for name, value in yaml.safe_load(path.read_text()).items() if name != key})
    with pytest.raises(InputError, match=f"{path}: {key} is missing"):
        load_sweep(path)


GRID = {"space": {"train.optim.name": {"choice": ["Adam", "SGD", "AdamW"]}}, "search": {"sampler": "grid"}}


@pytest.mark.parametrize(("budget", "trials"), [({}, 3), (None, 3), ({"trials": 2}, 2), ({"trials": 50}, 3)])
def test_a_grid_knows_its_number_of_trials(tmp_path: Path, budget: Any, trials: int) -> None:
    path = write_sweep(tmp_path, **GRID, budget=budget)
    if budget is None:
        path.write_text(path.read_text().replace("budget: null\n", ""))
    # The spec's Adam is trial 0.
    assert load_sweep(path).file.budget.trials == trials


def test_constraints_are_about_the_spec_with_its_overrides(tmp_path: Path) -> None:
    path = write_sweep(tmp_path, constraints=["train.optim.warmup_iters < train.num_epochs"])
    assert not load_sweep(path).space.broken_constraints({})
    assert load_sweep(path, ["train.num_epochs=1"]).space.broken_constraints({})
    assert load_sweep(path, ["train.num_epochs=1", "sweep.constraints=[]"]).space.constraints == ()


def documented() -> list[dict[str, Any]]:
    text = (REPOSITORY / "docs/sweep.md").read_text()
    return [yaml.safe_load(block) for block in re.findall(r"^```yaml\n(.*?)^```", text, re.DOTALL | re.MULTILINE)]


def test_the_page_begins_with_a_ready_sweep() -> None:
    whole, *examples = documented()
    assert whole == yaml.safe_load((REPOSITORY / "search_spaces/quickstart.yaml").read_text())
    assert len(examples) >= 3


@pytest.mark.parametrize("example", documented(), ids=lambda example: next(iter(example)))
def test_the_examples_of_the_page_are_sweeps(tmp_path: Path, example: dict[str, Any]) -> None:
    example |= {"spec": str(REPOSITORY / "configs/resnet50_market1501.yaml")}
    sweep = load_sweep(write_sweep(tmp_path, **example))
    assert validate_space(sweep, 200).experiments
    assert sweep.file.search.sampler != "grid" or sweep.file.budget.trials == 12


def test_the_table_of_ranges_is_read_back() -> None:
    rows = re.findall(r"^\| `(\w+): (.*?)` \|", (REPOSITORY / "docs/sweep.md").read_text(), re.MULTILINE)
    assert [kind for kind, _ in rows] == list(RANGE_KINDS)
    for kind, values in rows:
        entry = {kind: yaml.safe_load(values)}
        assert parse_range(entry, lambda value: value).as_entry() == entry


@pytest.mark.parametrize("override", ["sweep.name.first=x", "sweep.storage.folder=x"])
def test_an_override_below_a_plain_value_is_refused(tmp_path: Path, override: str) -> None:
    with pytest.raises(InputError, match=override.split(".")[1]):
        load_sweep(write_sweep(tmp_path), [override])


def test_a_spec_may_set_the_validation_split_that_every_sweep_has(tmp_path: Path) -> None:
    dataset = load_sweep(write_sweep(tmp_path, {"dataset": {"validation_fraction": 0.5}})).experiment.dataset
    assert (dataset.validation, dataset.validation_fraction) == ("holdout", 0.5)


def test_faults_of_the_spec_are_those_of_the_spec(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="spec.yaml: unknown key train.num_epoch; did you mean train.num_epochs"):
        load_sweep(write_sweep(tmp_path, {"train": {"num_epoch": 3}}))
    with pytest.raises(InputError, match="not an override"):
        load_sweep(write_sweep(tmp_path), ["train.num_epochs"])
