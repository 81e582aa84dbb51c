"""The Python interface, and the lines of the documents that use it."""

import re
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

import reid_tune
from reid_tune import api, load_sweep, run_sweep
from reid_tune.errors import InputError
from reid_tune.journal.state import trial_run
from reid_tune.search_space.load import SweepConfig

from .helpers.finished_sweep import simulate
from .helpers.simulated_driver import write_sweep

ROOT = Path(__file__).resolve().parent.parent
RATE = "train.optim.base_lr"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> SweepConfig:
    return simulate(tmp_path_factory.mktemp("api"), trials=8)


def test_trials_repeats_and_epochs_are_tables(finished: SweepConfig) -> None:
    sweep = load_sweep(finished.folder)
    trials, state = sweep.trials, sweep.state
    assert list(trials.index) == list(range(8)) and trials.index.name == "trial"
    keys = [key for key in finished.file.space if not key.startswith("re_ranking.")]
    assert list(trials.columns) == ["state", "epochs", "mAP", "hours", "origin", "reason", "failure", *keys]
    for run in state.trials:
        row = trials.loc[run.number]
        assert (row["state"], row["epochs"], row["origin"]) == (run.state, run.epoch, run.origin)
        assert row["mAP"] == run.last("mAP") or run.last("mAP") is None
        assert row[RATE] == run.parameters.get(RATE, finished.space.base[RATE])
    counts: Counter[int] = Counter()
    for row in [*state.stages["confirm"]["race"], *state.stages["confirm"]["trials"]]:
        counts[row["number"]] += len(row["values"])
    assert sweep.repeats.groupby("trial").size().to_dict() == counts
    assert list(sweep.repeats.columns) == ["trial", "repeat", "state", "epochs", "mAP", "hours"]
    curve = sweep.epochs.query("run == 'trials/0000'").set_index("epoch")["mAP"].to_dict()
    assert curve == {epoch: metrics["mAP"] for epoch, metrics in state.runs[trial_run(0)].epochs.items()}


def test_the_best_configuration_is_a_spec(finished: SweepConfig) -> None:
    sweep = load_sweep("simulated", storage=str(finished.folder.parent))
    winner = sweep.state.stages["confirm"]["winner"]
    assert sweep.best.train.optim.base_lr == sweep.trials.loc[winner, RATE]
    assert yaml.safe_load(sweep.best.to_yaml())["train"]["num_epochs"] == 6


def test_the_model_is_the_exported_one_or_the_newest_checkpoint(tmp_path: Path) -> None:
    sweep = load_sweep(simulate(tmp_path, trials=3, until="search").folder)
    with pytest.raises(InputError, match="has no model: its checkpoints were removed, or are not here"):
        _ = sweep.model
    best = sweep.trials["mAP"].idxmax()
    for path in (f"{trial_run(best)}/attempt-1/reid_model_latest.pth", "export/winner.onnx"):
        (sweep.folder / path).parent.mkdir(parents=True)
        (sweep.folder / path).touch()
        assert sweep.model == sweep.folder / path


def test_the_champion_is_that_of_the_registry(finished: SweepConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def resolve(reference: str, uri: str) -> Path:
        asked.append((reference, uri))
        return Path("/store/3")

    monkeypatch.setattr("reid_tune.tracking.registry.resolve.resolve", resolve)
    assert load_sweep(finished.folder).champion == Path("/store/3/model.onnx")
    assert asked[0][0] == "models:/model@champion"


def test_a_sweep_without_results(tmp_path: Path) -> None:
    sweep = load_sweep(simulate(tmp_path, until="").folder)
    assert (len(sweep.trials), len(sweep.repeats), len(sweep.epochs)) == (0, 0, 0)
    with pytest.raises(InputError, match="has no best trial: none has reached its last epoch"):
        _ = sweep.best
    with pytest.raises(InputError, match="there is no sweep 'other'"):
        load_sweep("other", storage=str(tmp_path / "runs"))


@pytest.mark.parametrize(
    "overrides",
    [
        {"sweep.budget.trials": 4, RATE: 1e-5, "model.backbone": "resnet_50", "train.optim.lr_steps": [1, 2]},
        {
            "sweep.budget.trials": np.int64(4),
            RATE: np.float64(1e-5),
            "model.backbone": np.str_("resnet_50"),
            "train.optim.lr_steps": np.array([1, 2]),
            "dataset.train_dataset_dir": Path("images"),
        },
        ["sweep.budget.trials=4", f"{RATE}=1.0e-5", "model.backbone=resnet_50", "train.optim.lr_steps=[1,2]"],
    ],
)
def test_a_sweep_runs_in_any_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, overrides: Any) -> None:
    calls: list[tuple[SweepConfig, dict[str, Any]]] = []

    def run(sweep: SweepConfig, **options: Any) -> None:
        calls.append((sweep, options))
        simulate(tmp_path, trials=3, until="search")

    monkeypatch.setattr("reid_tune.sweep.run.run_sweep", run)
    results: list[api.SweepResult] = []
    path = write_sweep(tmp_path)
    thread = threading.Thread(target=lambda: results.append(run_sweep(path, overrides, resume="auto", until="search")))
    thread.start()
    thread.join()
    ((sweep, options),) = calls
    assert options == {"resume": "auto", "until": "search", "start": None, "address": None, "accept_space": False}
    assert (sweep.file.budget.trials, sweep.experiment.train.optim.base_lr) == (4, 1e-5)
    assert sweep.experiment.train.optim.lr_steps == (1, 2)
    assert results[0].folder == sweep.folder and len(results[0].trials) == 3


def test_a_single_text_is_one_override(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sweeps: list[SweepConfig] = []
    monkeypatch.setattr("reid_tune.sweep.run.run_sweep", lambda sweep, **_: sweeps.append(sweep))
    monkeypatch.setattr(api, "SweepResult", lambda folder: folder)
    run_sweep(write_sweep(tmp_path), "sweep.budget.trials=4")
    assert sweeps[0].file.budget.trials == 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"resume": "yes"}, "resume='yes' is not a choice: use 'never', 'auto'."),
        ({"until": "xx"}, "until='xx' is not a choice: use 'preflight', 'search', "),
        ({"start": "xx"}, "start='xx' is not a choice: use None, 'preflight', "),
        ({"overrides": None}, "overrides=None: use a mapping of values by key, or texts"),
        ({"overrides": [4]}, "overrides=[4]: use a mapping of values by key, or texts"),
        ({"overrides": {RATE: 1j}}, f"the value of {RATE} is 1j: use a number, a text, a list or a mapping."),
    ],
)
def test_wrong_arguments_are_named(tmp_path: Path, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=f"^{re.escape(message)}"):
        run_sweep(write_sweep(tmp_path), **arguments)


def test_the_import_is_light() -> None:
    code = "import sys, reid_tune; print(*sorted({name.split('.')[0] for name in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert {"torch", "ray", "mlflow", "optuna", "numpy", "pandas", "pydantic"}.isdisjoint(done.stdout.split())
    with pytest.raises(AttributeError, match="'reid_tune' has no attribute 'load_sweeps'"):
        _ = reid_tune.load_sweeps


@pytest.mark.parametrize("document", ["README.md", "docs/python.md"])
def test_the_lines_of_the_documents_run(
    document: str, finished: SweepConfig, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Those of Python, with a finished sweep in the place of one that takes minutes."""
    blocks = re.findall(r"^```python\n(.*?reid_tune.*?)^```", (ROOT / document).read_text(), re.M | re.S)
    assert blocks
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "quickstart").symlink_to(finished.folder)
    (tmp_path / "search_spaces").symlink_to(ROOT / "search_spaces")
    monkeypatch.setattr("reid_tune.sweep.run.run_sweep", lambda *_, **__: None)
    monkeypatch.setattr("reid_tune.tracking.registry.resolve.resolve", lambda *_: tmp_path)
    monkeypatch.setattr(api.SweepResult, "model", tmp_path / "winner.onnx")
    names: dict[str, Any] = {}
    for block in blocks:
        exec(block, names)
