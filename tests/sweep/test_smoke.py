import tempfile
from pathlib import Path
from typing import Any

import pytest

from reid_tune.data.records import read_image_folder, read_training_folders, training_records
from reid_tune.data.splits import split_by_identity
from reid_tune.demo import draw_demo_data
from reid_tune.errors import InputError
from reid_tune.search.space_check import validate_space
from reid_tune.sweep.sample_images import link_images, sample_test_images, sample_training_images
from reid_tune.sweep.smoke import make_small_sweep
from reid_tune.training.data_split import load_split

from ..helpers.cli_sweep import Bench
from ..helpers.simulated_driver import make_sweep


@pytest.fixture(autouse=True)
def fewer_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reid_tune.sweep.smoke.SAMPLE_COUNT", 100)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("smoke")
    draw_demo_data(folder / "a", identities=40, images=8)
    draw_demo_data(folder / "b", identities=30, images=6, seed=1)
    return folder


@pytest.mark.parametrize("names", [["a"], ["a", "b"], ["b", "a"]])
@pytest.mark.parametrize("seed", [0, 5, 11])
def test_every_validation_split_leaves_enough(data: Path, tmp_path: Path, names: list[str], seed: int) -> None:
    seeds = range(seed, seed + 4)
    folders = read_training_folders([data / name / "bounding_box_train" for name in names])
    chosen = sample_training_images(folders, seeds=seeds, fraction=0.2, identities=8, images=4)
    linked = [link_images(records, tmp_path / str(number)) for number, records in enumerate(chosen)]
    records = training_records(*read_training_folders(linked))
    assert {(record.path.resolve(), record.identity, record.camera) for record in records} == {
        (record.path, record.identity, record.camera) for records in chosen for record in records if record.identity > 0
    }, "the folders after the first are numbered as in the whole data"
    for own in seeds:
        split = split_by_identity(records, seed=own, fraction=0.2)
        assert len({record.identity for record in split.train}) >= 8
        assert len({record.identity for record in split.query}) >= 2
    assert len(records) <= 4 * (8 + 2 * 4 + 8) and len(records) < len(training_records(*folders)) / 2


def test_what_is_not_there_cannot_be_chosen(data: Path) -> None:
    folders = read_training_folders([data / "b" / "bounding_box_train"])
    records = training_records(*folders)
    (chosen,) = sample_training_images(folders, seeds=[0], fraction=0.2, identities=1000, images=1000)
    held = {record.identity for record in split_by_identity(records, seed=0, fraction=0.2).query}
    assert {record.identity for record in chosen} >= {record.identity for record in records} - held
    with pytest.raises(InputError, match="validation split"):
        sample_training_images(folders, seeds=[0], fraction=1e-9, identities=2, images=2)


def test_queries_come_with_their_matches(data: Path) -> None:
    query, gallery = (read_image_folder(data / "a" / name) for name in ("query", "bounding_box_test"))
    queries, images = sample_test_images(query, gallery)
    assert len(queries) == len({record.identity for record in queries}) == 4 and len(images) == 32
    assert len(set(images)) == 32 and set(images) <= set(gallery.records)
    for own in queries:
        assert any(found.identity == own.identity and found.camera != own.camera for found in images)


SPACE: dict[str, Any] = {
    "train.num_epochs": {"choice": [10, 20]},
    "train.optim.warmup_iters": {"int": [1, 5], "when": {"train.num_epochs": 20}},
    "train.optim.base_lr": {"loguniform": [1e-4, 1e-2]},
    "dataset.batch_size": {"choice": [16, 32]},
    "re_ranking.k1": {"int": [4, 40]},
}


def test_the_small_sweep_is_the_sweep_but_for_epochs_trials_and_data(data: Path, tmp_path: Path) -> None:
    test = {"query_dataset_dir": str(data / "a/query"), "test_dataset_dir": str(data / "a/bounding_box_test")}
    other = {"query_dataset_dir": str(data / "b/query"), "test_dataset_dir": str(data / "b/bounding_box_test")}
    train = [str(data / name / "bounding_box_train") for name in "ab"]
    base = {
        "model": {"backbone": "resnet18"},
        "dataset": {"train_dataset_dir": train, "batch_size": 16, "extra_tests": [{"name": "b", **other}], **test},
        "train": {"num_epochs": 20},
    }
    constraints = ["train.num_epochs >= 10", "dataset.batch_size % dataset.num_instances == 0"]
    more = {"constraints": constraints, "search": {"sampler": "random", "start_from": ["earlier"]}}
    sweep = make_sweep(tmp_path, base, space=SPACE, **more)
    small = make_small_sweep(sweep, tmp_path / "small", with_tests=True)

    assert {parameter.key for parameter in small.space.parameters} == {
        "train.num_epochs",
        "train.optim.base_lr",
        "dataset.batch_size",
    }
    assert [constraint.text for constraint in small.space.constraints] == constraints[1:]
    assert small.re_ranking.as_entries() == sweep.re_ranking.as_entries()
    assert {experiment.train.num_epochs for experiment in validate_space(small, 50).experiments} == {1}
    assert (small.file.budget.trials, small.file.confirm.repeats, small.file.search.start_from) == (2, 1, ())
    assert small.file.resources == sweep.file.resources and small.folder.is_relative_to(tmp_path / "small")
    differing = {
        key for key, value in small.experiment.parameters().items() if sweep.experiment.parameters()[key] != value
    }
    folders = {"dataset.train_dataset_dir", "dataset.query_dataset_dir", "dataset.test_dataset_dir"}
    assert differing == folders | {"dataset.extra_tests", "train.num_epochs", "train.checkpoint_interval"}
    split = load_split(small.experiment)
    assert len({record.identity for record in split.train}) >= 8 and 40 <= len(split.train) <= 160


def test_the_key_is_in_no_file_of_the_small_sweep(data: Path, tmp_path: Path) -> None:
    base = {"encryption_key": "hush-4711", "dataset": {"train_dataset_dir": str(data / "a/bounding_box_train")}}
    small = make_small_sweep(make_sweep(tmp_path, base), tmp_path / "small", with_tests=False)
    assert small.experiment.encryption_key == "hush-4711"
    texts = [path.read_text() for path in (tmp_path / "small").glob("*.yaml")]
    assert len(texts) == 2 and "hush" not in "".join(texts)


@pytest.mark.integration
@pytest.mark.timeout(1500)
def test_a_smoke_runs_every_stage_and_leaves_no_files(tmp_path: Path) -> None:
    space = {"train.optim.base_lr": {"loguniform": [2.0e-4, 5.0e-3]}, "re_ranking.k1": {"int": [2, 30]}}
    bench = Bench(tmp_path, space=space, scheduler={"name": "asha"})
    (tmp_path / "cache").mkdir()
    before = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*"))
    # A short name, for Ray's sockets.
    with tempfile.TemporaryDirectory(prefix="rt", dir="/tmp") as temporary:
        bench.environment |= {"TMPDIR": temporary, "REID_TUNE_CACHE_DIR": str(tmp_path / "cache")}
        done = bench.run("sweep", "sweep.yaml", "--smoke")
        assert [path.name for path in Path(temporary).iterdir() if path.name.startswith("reid-tune")] == []
    del bench.environment["TMPDIR"]
    assert done.stdout.startswith("smoke: all stages ran in ") and done.stdout.endswith(" images\n")
    assert all(f"stage {name}" in done.stderr for name in ("search", "confirm", "rerank", "refit", "test", "register"))
    assert sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*")) == before

    failed = bench.run("sweep", "sweep.yaml", "--smoke", "model.feat_dim=0", status=2)
    assert "model.feat_dim" in failed.stderr and failed.stdout == ""
    assert sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*")) == before
