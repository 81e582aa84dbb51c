import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from reid_tune.config.load import load_experiment, with_parameters
from reid_tune.demo import draw_demo_data
from reid_tune.journal.progress import read_sweep
from reid_tune.journal.run_record import RunRecord, WorkerResources
from reid_tune.journal.state import RunState
from reid_tune.report.formatting import inline_yaml
from reid_tune.report.reproduce import reproduce_command, reproduce_commands, write_spec
from reid_tune.sweep.reproduce import compare_metrics

from ..helpers.finished_sweep import simulate
from ..helpers.simulated_driver import write_yaml

LINES = st.text(st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"]), max_size=9)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | LINES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(LINES, inner, max_size=2),
    max_leaves=5,
)


@given(VALUES)
def test_a_value_in_one_line_is_read_as_what_it_was(value: Any) -> None:
    text = inline_yaml(value)
    assert "\n" not in text and yaml.safe_load(text) == value


def overrides_of(command: str) -> list[str]:
    """The variables and overrides of a command, whose spec is read from where it says."""
    words = shlex.split(command)
    start = words.index("reid-tune")
    assert words[start + 1 : start + 3] == ["train", "-e"]
    return words[start + 3 :]


@pytest.mark.usefixtures("no_fsync")
def test_the_commands_train_what_the_winner_was(tmp_path: Path) -> None:
    sweep = simulate(tmp_path, trials=4)
    state, _ = read_sweep(sweep.folder)
    winner = state.finished()[0]
    results = "results/simulated"
    search = {"train.results_dir": f"{results}-trial-{winner.number}"}
    refit = {"train.results_dir": f"{results}-refit-winner", "dataset.validation": "none"}
    commands = reproduce_commands(state, winner, write_spec(sweep.folder, state)).values()
    for command, more in zip(commands, (search, refit), strict=True):
        spec, *overrides = overrides_of(command)
        assert spec == str(sweep.folder / "spec.yaml")
        assert load_experiment(spec, overrides) == with_parameters(sweep.experiment, winner.parameters | more, "")
    assert sweep.experiment.dataset.validation == "holdout"


@pytest.mark.usefixtures("no_fsync")
def test_values_that_a_run_makes_idle_do_not_refuse_its_command(tmp_path: Path) -> None:
    sweep = simulate(tmp_path, trials=1)
    state, _ = read_sweep(sweep.folder)
    state.header.spec.update({"dataset.validation_seed": 7, "train.optim.triplet_loss_margin": 0.47})
    run = RunState("refit/winner", {"dataset.validation": "none", "model.no_margin": True})
    spec, *overrides = overrides_of(str(reproduce_command(state, run, write_spec(sweep.folder, state))))
    experiment = load_experiment(spec, overrides)
    assert experiment.model.no_margin and experiment.dataset.validation == "none"
    assert "dataset.validation_seed=0" in overrides  # a margin without effect is not refused, and stays


@pytest.mark.usefixtures("no_fsync")
def test_the_command_computes_as_the_worker_did(tmp_path: Path) -> None:
    sweep = simulate(tmp_path, trials=2)
    state, _ = read_sweep(sweep.folder)
    trial, spec = state.trials[1], write_spec(sweep.folder, state)

    def command(resources: WorkerResources, **more: object) -> tuple[list[str], bool]:
        experiment = with_parameters(sweep.experiment, more, "")
        RunRecord.of(experiment, {}, resources).write(sweep.folder / trial.name)
        again = reproduce_command(state, trial, spec)
        return str(again).split(" -e ")[0].split() + [
            word for word in again.arguments if "num_gpus" in word
        ], again.is_exact

    train = ["reid-tune", "train"]
    assert command(WorkerResources(1, 3, 0, gpus_hidden=True))[0] == [
        "CUDA_VISIBLE_DEVICES=",
        "OMP_NUM_THREADS=3",
        *train,
    ]
    assert command(WorkerResources(2, 1, 0))[0] == ["OMP_NUM_THREADS=1", *train, "train.num_gpus=2"]
    assert command(WorkerResources(2, 1, 1))[0] == [*train, "train.num_gpus=2"]
    assert not reproduce_command(state, trial, spec).is_exact
    state.header.spec["train.deterministic"] = True
    assert command(WorkerResources(1, 1, 1))[1] and not command(WorkerResources(2, 1, 1))[1]


TWICE = """
import json, sys, torch
from pathlib import Path
from reid_tune.demo import draw_demo_data
from reid_tune.config.load import load_experiment
from reid_tune.training.loop import train
class Silent:
    def start(self, *a): pass
    info = report_step = report_epoch = start
if len(sys.argv) > 3:
    torch.set_num_threads(int(sys.argv[3]))
assert torch.get_num_threads() == 2
history = train(load_experiment(sys.argv[1]), Silent(), Path(sys.argv[2])).history
print(json.dumps([{k: v for k, v in m.items() if k != "images_per_second"} for m in history]))
"""


@pytest.mark.integration
def test_threads_by_the_environment_are_the_threads_of_a_worker(tmp_path: Path) -> None:
    draw_demo_data(tmp_path / "data", identities=10, images=4)
    spec = write_yaml(
        tmp_path / "spec.yaml",
        {
            "model": {"backbone": "resnet18", "input_width": 32, "input_height": 64},
            "dataset": {"train_dataset_dir": str(tmp_path / "data/bounding_box_train"), "batch_size": 16}
            | {"validation": "holdout", "validation_fraction": 0.5},
            "train": {"num_epochs": 2, "deterministic": True, "optim": {"warmup_iters": 0}},
        },
    )
    histories = []
    for threads, *words in (("2", "a"), ("1", "b", "2")):
        command = [sys.executable, "-c", TWICE, str(spec), *(str(tmp_path / words[0]), *words[1:])]
        environment = os.environ | {"OMP_NUM_THREADS": threads}
        histories.append(json.loads(subprocess.run(command, env=environment, check=True, capture_output=True).stdout))
    assert histories[0] == histories[1] and "mAP" in histories[0][-1]


def test_metrics_are_compared_at_the_last_epoch_of_the_run() -> None:
    run = RunState("trials/0001", {}, epochs={1: {"loss": 2.0}, 2: {"loss": 1.0, "mAP": 0.5, "images_per_second": 9.0}})
    again = {2: {"loss": 1.0, "mAP": 0.25, "images_per_second": 1.0, "epoch": 2}, 3: {"loss": 0.5}}
    assert compare_metrics(run, again) == {
        "loss": {"sweep": 1.0, "again": 1.0, "equal": True},
        "mAP": {"sweep": 0.5, "again": 0.25, "equal": False},
    }
