"""The stage `register` after real stages, on checkpoints that were never trained, and who reads what it registers."""

import json
from hashlib import sha256
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest
import torch

from reid_tune.checkpoints.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from reid_tune.checkpoints.filenames import LATEST
from reid_tune.config.experiment import Experiment
from reid_tune.config.load import build_experiment, load_experiment, with_parameters
from reid_tune.data.records import ImageRecord
from reid_tune.demo import draw_demo_data
from reid_tune.errors import InputError
from reid_tune.evaluation.features import make_feature_set, write_features
from reid_tune.execution.fixed_runs import features_file
from reid_tune.journal.events import CandidateSelected, EpochReported, RunEnded, RunSuggested, StageDone
from reid_tune.journal.journal import Journal
from reid_tune.journal.state import confirm_run, refit_run, trial_run
from reid_tune.modeling.network import build_seeded_network
from reid_tune.search_space.load import SweepConfig
from reid_tune.sweep.pretrained import pinned_pretrained_weights
from reid_tune.sweep.stages.confirm import choose_winner
from reid_tune.sweep.stages.export import export_finalists
from reid_tune.sweep.stages.preflight import run_preflight
from reid_tune.sweep.stages.register import register
from reid_tune.sweep.stages.test_set import evaluate_finalists as run_test
from reid_tune.tasks.evaluate import run_evaluate
from reid_tune.tasks.export import run_export
from reid_tune.tasks.inference import run_inference
from reid_tune.tasks.train import run_train
from reid_tune.tracking.champion_comparison import COMPARISON_TAG, Verdict, parse_verdict
from reid_tune.tracking.registry.champion import read_champion_spec
from reid_tune.tracking.registry.overview import show_version
from reid_tune.tracking.store import client, tracking_uri
from reid_tune.training.data_split import load_split

from ...helpers.events import attempt_started, sweep_header
from ...helpers.leaks import files, leaks
from ...helpers.simulated_driver import make_sweep

SECRET = "of-the-environment-4711"
SECRET_NAMES = ("AWS_SECRET_ACCESS_KEY", "HF_TOKEN", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN", "MY_API_KEY")

# The first test waits for four real stages with two exports: 8 s of one core.
pytestmark = pytest.mark.timeout(120)


def write_repeat(journal: Journal, sweep: SweepConfig, run: str, noise: float) -> None:
    """Embeddings of a repeat's validation split, the farther from those of the identity the more noise."""
    split = load_split(with_parameters(sweep.experiment, journal.state.runs[run].parameters, run))
    draw = np.random.default_rng(0)
    identities = draw.normal(size=(10_000, 8))

    def side(records: tuple[ImageRecord, ...]) -> list[Any]:
        ids = np.array([record.identity for record in records])
        features = identities[ids] + noise * draw.normal(size=(len(ids), 8))
        return [features, ids, np.array([record.camera for record in records])]

    write_features(features_file(journal.folder, run), make_feature_set(*side(split.query), *side(split.gallery)))


@pytest.fixture(scope="module")
def registered(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A sweep whose trial 1, of the bundle `fast`, has won: the tree of its spec, the sweep and its log."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("registered")
    data = folder / "data"
    draw_demo_data(data, identities=12, images=6)
    tree = {
        "results_dir": str(folder / "results"),
        "model": {"backbone": "test_resnet", "input_height": 32, "input_width": 16, "feat_dim": 16},
        "dataset": {
            "train_dataset_dir": str(data / "bounding_box_train"),
            "test_dataset_dir": str(data / "bounding_box_test"),
            "query_dataset_dir": str(data / "query"),
            "batch_size": 8,
        },
        "train": {"num_epochs": 1, "optim": {"warmup_iters": 0}},
        "evaluate": {"fmr": 0.05},
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder}/mlflow.db")
        for name in SECRET_NAMES:
            patch.setenv(name, SECRET)
        patch.setattr("reid_tune.sweep.stages.preflight.SAMPLE_COUNT", 50)
        patch.setattr("reid_tune.sweep.stages.test_set._draw", lambda *_: None)  # test_test_set.py tests the pictures
        bundles = [{"name": "fast", "train.optim.base_lr": 0.001}, {"name": "slow", "train.optim.base_lr": 0.0001}]
        sections = {"confirm": {"candidates": 1, "repeats": 1}, "registry": {"model": "people", "alias": "best"}}
        sweep = make_sweep(folder, tree, bundle=bundles, space={}, **sections)
        journal = Journal(sweep.folder)
        content = {"sweep": sweep.file.model_dump(mode="json"), "spec": sweep.experiment.parameters()}
        journal.emit(sweep_header(name="simulated", uid="uid", tracking_uri=tracking_uri(), **content))
        seeds = {"dataset.validation_seed": 7, "train.seed": 7}
        won = {"bundle": "fast", "train.optim.base_lr": 0.001}
        runs = {trial_run(0): {}, trial_run(1): won, confirm_run(0, 1): seeds, confirm_run(1, 1): won | seeds}
        for run, parameters in (runs | {refit_run("winner"): won, refit_run("trial0"): {}}).items():
            journal.emit(RunSuggested(run=run, parameters=parameters))
            journal.emit(attempt_started(run=run, attempt=1))
            journal.emit(EpochReported(run=run, epoch=1, metrics={"mAP": 0.5, "loss": 1.0, "lr": 0.1}))
            journal.emit(RunEnded(run=run, state="finished", epoch=1))
        spec = sweep.experiment.model_dump(mode="json", exclude={"encryption_key"})
        for number, name in enumerate(("trial0", "winner")):
            write_repeat(journal, sweep, confirm_run(number, 1), noise=2.0 * (1 - number))
            network = build_seeded_network(sweep.experiment.model, 8, seed=number)
            path = sweep.folder / refit_run(name) / "attempt-1" / LATEST
            save_checkpoint(path, Checkpoint(spec, 1, list(range(8)), [{"epoch": 1}], network.state_dict(), {}))
        journal.emit(CandidateSelected(rounds=0, trial=1))
        for name, stage in {
            "confirm": choose_winner,
            "export": export_finalists,
            "test": run_test,
            "register": register,
        }.items():
            journal.emit(StageDone(stage=name, result=stage(sweep, journal)))
        yield tree, sweep, journal


@pytest.fixture
def experiment(registered: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The sweep's spec with other values, in a folder of its own."""
    monkeypatch.chdir(tmp_path)

    def make(**values: Any) -> Experiment:
        overrides = {key.replace("__", "."): value for key, value in values.items()}
        return build_experiment(registered[0], {"results_dir": str(tmp_path), **overrides}, "test")

    return make


def test_no_secret_of_the_environment_is_in_results_model_files_or_registry(registered: Any) -> None:
    _, sweep, _ = registered
    folder = sweep.folder.parents[1]
    assert {"runs", "mlflow.db", "mlartifacts"} <= {path.relative_to(folder).parts[0] for path, _ in files(folder)}
    assert leaks(SECRET, folder) == []


def test_a_version_has_its_numbers_in_words_and_as_tags(registered: Any) -> None:
    _, sweep, journal = registered
    state = journal.state
    assert state.stages["register"]["version"] == 1 and state.stages["register"]["alias"] == "best"
    found = show_version(tracking_uri(), "people@best")
    plain, tags = state.stages["test"]["models"]["winner"]["plain"], found["tags"]
    low, high = plain["intervals"]["mAP"]
    row = next(line for line in found["description"].splitlines() if line.startswith("| plain"))
    assert row.startswith(f"| plain | {100 * plain['mAP']:.1f} ({100 * low:.1f}-{100 * high:.1f}) |")
    first = f"mAP {100 * plain['mAP']:.1f} %, Rank-1 {100 * plain['Rank-1']:.1f} % on test: winner of the sweep"
    assert found["description"].startswith(f"{first} **simulated**, trial 1.")
    assert "| re-ranked |" in found["description"] and "| re-ranked as tuned |" not in found["description"]
    confirmed = state.stages["confirm"]["trials"][1]
    gain = 100 * confirmed["against_trial0"]["mean"]
    assert gain > 10
    assert f"mean of 1 repeat: mAP {100 * confirmed['mean']:.1f} %." in found["description"]
    baseline = f"Not proven. Trial 1: +{gain:.1f} points of mAP against trial 0, mean of 1 repeat."
    assert f"**Is the winner better than the baseline?** {baseline}" in found["description"]
    assert "**Is the winner better than the champion?** There is none." in found["description"]
    assert "**What was spent?** " in found["description"]
    assert (
        "test folders: this test set has been evaluated 1 time by this user on this machine or by sweeps"
        in found["description"]
    )
    assert "The ONNX file against PyTorch: smallest cosine 1 - " in found["description"]
    assert (tags["sweep"], tags["trial"], tags["test_evaluations"]) == ("simulated", "1", "1")
    scores = {"test/mAP": plain["mAP"], "test/Rank-1": plain["Rank-1"]}
    assert {name: tags[name] for name in scores} == {name: f"{value:.4f}" for name, value in scores.items()}
    assert json.loads(tags["parity"]) == state.stages["export"]["winner"]["parity"]
    assert json.loads(tags["parity"])["difference"] < 5e-4
    assert sweep.file.name == found["sweep"]


def test_the_spec_of_a_version_has_the_values_of_the_bundle_that_has_won(registered: Any) -> None:
    path = Path(show_version(tracking_uri(), "people@best")["source"]) / "spec.yaml"
    assert load_experiment(path).train.optim.base_lr == 0.001 and "bundle" not in path.read_text()


def test_a_version_has_the_sweep_s_comparison_with_the_champion(registered: Any) -> None:
    """No version had the alias: the sweep compared its winner with none."""
    tags = show_version(tracking_uri(), "people@best")["tags"]
    assert parse_verdict("people", tags, COMPARISON_TAG) == Verdict()
    assert read_champion_spec(tracking_uri(), "people", "best") == (
        1,
        (registered[1].folder / "export" / "winner.yaml").read_text(),
    )
    assert read_champion_spec(tracking_uri(), "people", "champion") is None
    assert read_champion_spec(tracking_uri(), "others", "best") is None


def test_the_input_example_of_a_version_can_be_predicted(registered: Any) -> None:
    model = mlflow.pyfunc.load_model("models:/people@best")
    assert model.input_example.shape == (1, 3, 32, 16)
    (found,) = model.predict(model.input_example).values()
    assert found.shape == (1, 16) and np.isfinite(found).all()


@pytest.mark.parametrize("reference", ["models:/people@best", "models:/people/1", "runs:/ID/FOLDER/checkpoint.pth"])
def test_a_version_is_taken_wherever_a_checkpoint_is_asked_for(
    registered: Any, experiment: Any, reference: str
) -> None:
    _, sweep, journal = registered
    found = show_version(tracking_uri(), "people@best")
    reference = reference.replace("ID", found["run"]).replace("FOLDER", Path(found["source"]).name)
    plain = journal.state.stages["test"]["models"]["winner"]["plain"]
    evaluation = run_evaluate(experiment(evaluate__checkpoint=reference)).as_dict()
    assert evaluation["plain"]["mAP"] == pytest.approx(plain["mAP"], abs=1e-3)
    assert run_inference(experiment(inference__checkpoint=reference)).dimension == 16
    file, parity = run_export(None, reference, {"export.onnx_file": "again.onnx"})
    assert file.is_file() and parity.equal
    weights = load_checkpoint(run_train(experiment(model__pretrained_model_path=reference)), None)
    assert weights.epoch == 1
    resumed = experiment(train__resume_training_checkpoint_path=reference, train__num_epochs=2)
    with pytest.raises(InputError, match="checkpoint.pth was trained on 8 identities"):
        run_train(resumed)


def test_a_folder_of_a_run_without_a_model_is_refused(experiment: Any) -> None:
    run = show_version(tracking_uri(), "people@best")["run"]
    client(tracking_uri()).log_text(run, "nothing", "notes/a.txt")
    with pytest.raises(InputError, match=f"runs:/{run}/notes has no model.onnx; it has a.txt"):
        run_evaluate(experiment(evaluate__checkpoint=f"runs:/{run}/notes"))


def test_a_sweep_keeps_the_weights_that_a_reference_named_as_it_began(registered: Any, tmp_path: Path) -> None:
    tree, reference = registered[0], "models:/people@best"
    sweep = make_sweep(tmp_path, tree | {"model": tree["model"] | {"pretrained_model_path": reference}})
    wanted = (Path(show_version(tracking_uri(), "people@best")["source"]) / "checkpoint.pth").read_bytes()

    with pinned_pretrained_weights(sweep, {}) as own:
        file = Path(str(own.experiment.model.pretrained_model_path))
        assert file.read_bytes() == wanted and file.parent == sweep.folder / "pretrained"
        assert run_preflight(own, ("preflight",)).pretrained == {str(file): sha256(wanted).hexdigest()}
    assert not sweep.folder.exists(), "a sweep that did not begin leaves nothing"

    with pinned_pretrained_weights(sweep, {}) as own, Journal(sweep.folder) as journal:
        journal.emit(sweep_header(weights=dict(own.weights_references), spec=own.experiment.parameters()))
        header, file = journal.state.header, Path(str(own.experiment.model.pretrained_model_path))
    assert file.read_bytes() == wanted
    client(tracking_uri()).delete_registered_model_alias("people", "best")
    try:
        with pinned_pretrained_weights(sweep, header.weights) as again:
            assert again.experiment.model.pretrained_model_path == str(file)
        with pytest.raises(InputError, match="has no alias best"), pinned_pretrained_weights(sweep, {}):
            pass
    finally:
        client(tracking_uri()).set_registered_model_alias("people", "best", "1")


def test_a_sweep_wants_an_alias_that_can_be_one(registered: Any, tmp_path: Path) -> None:
    tree = registered[0]
    with pytest.raises(InputError, match="registry.alias: 'latest' cannot be an alias"):
        run_preflight(make_sweep(tmp_path, tree, registry={"model": "people", "alias": "latest"}), ("preflight",))
