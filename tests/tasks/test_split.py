"""The task `split`, and the lists that a training writes next to its checkpoints."""

import os
from pathlib import Path

import pytest

from reid_tune.checkpoints.checkpoint import load_checkpoint
from reid_tune.errors import InputError
from reid_tune.tasks.check_data import check_data
from reid_tune.tasks.split import run_split, write_split_lists
from reid_tune.tasks.train import run_train
from reid_tune.training.data_split import load_split

from .conftest import Spec

HOLDOUT = {"dataset__validation": "holdout", "dataset__validation_fraction": 0.5}
LISTS = ["gallery.txt", "query.txt", "train.txt"]


def lines(folder: Path) -> dict[str, list[str]]:
    return {name: (folder / name).read_text().splitlines() for name in LISTS}


def test_the_counts_are_those_of_the_lists(spec: Spec, tmp_path: Path) -> None:
    counts = run_split(spec(**HOLDOUT), tmp_path / "lists")
    written = lines(tmp_path / "lists")
    assert sorted(os.listdir(tmp_path / "lists")) == LISTS
    for name, row in counts.items():
        people = {line.split("/")[1][:4] for line in written[f"{name}.txt"]}
        assert (row["images"], row["identities"]) == (len(written[f"{name}.txt"]), len(people))
        assert 0 < row["cameras"] <= row["images"]
    assert sum(map(len, written.values())) == load_split(spec(dataset__validation="none")).images


def test_a_folder_in_use_and_a_spec_without_holdout_are_refused(spec: Spec, tmp_path: Path) -> None:
    used = tmp_path / "used"
    used.mkdir()
    (used / "notes.md").touch()
    for path in (used, used / "notes.md"):
        with pytest.raises(InputError, match=f"{path} is not an empty folder; give the name of a new one"):
            run_split(spec(**HOLDOUT), path)
    for word in ("none", "auto", "test"):
        with pytest.raises(InputError, match=f"validation = '{word}' holds no training identities out: set it to hold"):
            run_split(spec(dataset__validation=word), tmp_path / "new")
    assert os.listdir(used) == ["notes.md"] and not (tmp_path / "new").exists()


def test_a_training_leaves_its_lists_which_another_reads(
    spec: Spec, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = load_checkpoint(run_train(spec(**HOLDOUT, results_dir=str(tmp_path / "first"))))
    folder = tmp_path / "first" / "train" / "split"
    assert sorted(os.listdir(folder)) == LISTS
    assert f"gallery images, held-out identities, listed in {folder}\n" in capsys.readouterr().err
    second = load_checkpoint(run_train(spec(dataset__validation=str(folder), results_dir=str(tmp_path / "second"))))
    assert "are left out" not in capsys.readouterr().err
    assert lines(tmp_path / "second" / "train" / "split") == lines(folder)
    scores = [{**checkpoint.history[0], "images_per_second": 0} for checkpoint in (first, second)]
    assert scores[0] == scores[1] and scores[0]["mAP"] > 0


def test_a_training_without_holdout_leaves_no_lists(spec: Spec, tmp_path: Path) -> None:
    run_train(spec())
    assert "split" not in os.listdir(tmp_path / "results" / "train")


def test_images_in_no_list_are_counted_and_lists_are_checked(
    spec: Spec, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "lists"
    write_split_lists(spec(**HOLDOUT), folder)
    shorter = lines(folder)["train.txt"][:-2]
    (folder / "train.txt").write_text("\n".join(shorter))
    listed = spec(dataset__validation=str(folder))
    run_train(listed)
    assert (
        "\nleft out: 2 of 23 files of train (2 in none of the lists of dataset.validation)\n" in capsys.readouterr().err
    )
    assert len(load_split(listed).train) == len(shorter)
    unlisted = "left out: 2 of 23 files of train (2 in none of the lists of dataset.validation)."
    assert unlisted in [finding.sentence for finding in check_data(listed).findings]
    assert check_data(listed).rows()["validation query"]["used"] == len(lines(folder)["query.txt"])


def test_people_of_several_folders_are_no_leak_of_a_holdout(
    spec: Spec, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Both folders number their people alike: the same numbers are other people."""
    folders = [str(data / "bounding_box_train"), str(data / "bounding_box_test")]
    run_train(spec(**HOLDOUT, dataset__train_dataset_dir=folders, results_dir=str(tmp_path / "several")))
    err = capsys.readouterr().err
    assert "held-out identities" in err and "the score will be meaningless" not in err
