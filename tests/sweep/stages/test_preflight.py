import hashlib
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from PIL import Image

from reid_tune.data.records import ImageRecord
from reid_tune.data.splits import split_by_identity
from reid_tune.errors import InputError
from reid_tune.journal.stages import STAGES
from reid_tune.sweep.stages.preflight import run_preflight
from reid_tune.sweep.stages.weights_check import require_same_weights, weights_digests

from ...helpers.simulated_driver import SPACE, make_sweep

Plan = Callable[..., dict[str, Any]]

RATE = {"train.optim.base_lr": {"loguniform": [1e-4, 1e-2]}}


def write_crops(folder: Path, identities: int) -> Path:
    folder.mkdir()
    picture = io.BytesIO()
    Image.new("RGB", (4, 8)).save(picture, "JPEG")
    for identity in range(1, identities + 1):
        for camera in (1, 2):
            for frame in range(2):
                (folder / f"{identity:04d}_c{camera}s1_{frame:06d}_00.jpg").write_bytes(picture.getvalue())
    return folder


@pytest.fixture
def plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plan:
    monkeypatch.setattr("reid_tune.sweep.stages.preflight.SAMPLE_COUNT", 50)
    train = write_crops(tmp_path / "train", 60)

    def make(
        until: str = "export", /, spec: dict[str, Any] | None = None, address: str | None = None, **values: Any
    ) -> dict[str, Any]:
        spec = spec or {}
        base = {
            "train": {"num_epochs": 20, "optim": {"warmup_iters": 1}} | spec.get("train", {}),
            "dataset": {"train_dataset_dir": str(train), "batch_size": 32} | spec.get("dataset", {}),
            "model": spec.get("model", {}),
        }
        stages = STAGES[: STAGES.index(until) + 1]
        return run_preflight(make_sweep(tmp_path, base, **values), stages, address).as_dict()

    return make


def test_a_compiler_is_looked_for_where_the_trials_are(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert plan(spec={"train": {"compile": True}})["training_images"]
    for variable, value in (("CC", "missing"), ("CXX", "missing")):
        monkeypatch.setenv(variable, value)
    with pytest.raises(InputError, match=r"^train\.compile = true needs a C\+\+ compiler, but CXX = 'missing' is not"):
        plan(spec={"train": {"compile": True}})
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(InputError, match=r"^train\.compile = true needs a C compiler, but CC = 'missing' is not"):
        plan(spec={"train": {"compile": True}})
    assert plan(spec={"train": {"compile": "auto"}})["training_images"]
    assert plan(address="auto", spec={"train": {"compile": True}})["training_images"]


def test_the_plan(plan: Plan, tmp_path: Path) -> None:
    (tmp_path / "train" / "picture.jpg").touch()
    found = plan()
    held_out = found["held_out_identities"]
    assert 0 < held_out < 30
    assert found["training_identities"] == 60 - held_out
    assert found["training_images"] == 4 * (60 - held_out)
    # The longest warm-up is 2, a tenth of the epochs is 2.
    assert found["rungs"] == [2, 6, 18]
    noisy, names = found["warnings"]
    assert noisy.startswith(f"{held_out} identities are held out") and "noisy" in noisy
    assert names == "left out: 1 of 241 files of train (1 whose name does not parse, 'picture.jpg')"
    assert found["data"]["train"] == {"files": 241, "used": 240, "left_out": {"name": 1}}


@pytest.mark.parametrize(
    ("scheduler", "levels"),
    [
        ({"grace_period": "auto", "reduction_factor": 2}, [2, 4, 8, 16]),
        ({"grace_period": 3, "reduction_factor": 3}, [3, 9]),
        ({"name": "none"}, []),
        ({"name": "none", "grace_period": 1}, []),
    ],
)
def test_rungs(plan: Plan, scheduler: dict[str, Any], levels: list[int]) -> None:
    assert plan(scheduler=scheduler)["rungs"] == levels


@pytest.mark.parametrize("grace", [-1, 0])
def test_a_grace_period_within_a_warm_up_is_refused(plan: Plan, grace: int) -> None:
    with pytest.raises(InputError, match=rf"scheduler.grace_period = {grace} .*shortest warm-up of"):
        plan(scheduler={"grace_period": grace})


def test_the_warm_up_of_a_cosine_counts(plan: Plan) -> None:
    cosine = {"train": {"num_epochs": 20, "optim": {"warmup_method": "cosine", "warmup_epochs": 7}}}
    assert plan(spec=cosine, space=RATE)["rungs"] == [9]


@pytest.mark.parametrize(
    ("space", "parts"),
    [
        ({"dataset.num_instances": {"choice": [4, 5]}}, ["dataset.num_instances", "is not a multiple of"]),
        ({"train.optim.name": {"choice": ["Adam", "LAMB"]}}, ["is not an optimizer", "LAMB"]),
        ({"train.optim.base_lr": {"uniform": [0, 11]}}, ["train.optim.base_lr", "less than or equal to 10"]),
        ({"model.with_center_loss": {"choice": [True, False]}}, ["with_center_loss"]),
        ({"dataset.padding": {"uniform": [0, 5]}}, ["dataset.padding", "integer"]),
    ],
)
def test_a_range_that_breaks_a_rule_names_the_rule(plan: Plan, space: dict[str, Any], parts: list[str]) -> None:
    with pytest.raises(InputError) as caught:
        plan(space=space)
    for part in ("the space allows {", *parts):
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("extra", "reason"),
    [
        ({"train.optim.momentum": {"uniform": [0.5, 0.9]}}, "the optimizer is not SGD"),
        ({"train.optim.warmup_epochs": {"int": [1, 3]}}, "the schedule has steps"),
    ],
)
def test_a_searched_key_without_effect_is_refused(plan: Plan, extra: dict[str, Any], reason: str) -> None:
    (key,) = extra
    with pytest.raises(InputError, match=f"space.{key} has no effect, because {reason}: remove it"):
        plan(space=RATE | extra)


def test_parts_that_do_not_divide_the_map_in_some_trials_are_refused(plan: Plan) -> None:
    spec = {"model": {"backbone": "test_resnet", "input_height": 64, "input_width": 32}}
    assert plan(spec=spec, space={"model.parts": {"choice": [[1], [1, 2]]}})["rungs"]
    with pytest.raises(InputError, match=r"^model.parts = \[1, 2, 3\]: the last map of test_resnet has 4 rows"):
        plan(spec=spec, space={"model.parts": {"choice": [[1], [1, 2, 3]]}})


def test_a_key_with_an_effect_in_some_trials_is_kept(plan: Plan) -> None:
    momentum = {"train.optim.momentum": {"uniform": [0.5, 0.9]}, "train.optim.name": {"choice": ["Adam", "SGD"]}}
    assert plan(space=momentum)["rungs"]


def test_a_batch_that_the_refits_workers_cannot_share_is_refused(plan: Plan) -> None:
    space = {"dataset.batch_size": {"choice": [16, 20]}}
    assert plan(space=space, resources={"refit_workers": 4})
    with pytest.raises(InputError, match="dataset.batch_size = 20 cannot be divided among 8 workers: the next .* 24"):
        plan(space=space, resources={"refit_workers": 8})


def test_too_few_identities_for_a_batch(plan: Plan) -> None:
    assert plan(space={"dataset.batch_size": {"choice": [32, 64]}})
    with pytest.raises(InputError, match=r"dataset.batch_size = 512 .*needs 128 identities.*leaves \d\d for training"):
        plan(space={"dataset.batch_size": {"choice": [32, 512]}})
    with pytest.raises(InputError, match="dataset.batch_size = 512"):
        plan(spec={"dataset": {"batch_size": 512}}, space=SPACE)


def test_the_test_folders_are_wanted_by_the_stage_test(plan: Plan, tmp_path: Path) -> None:
    for until in ("preflight", "search", "refit", "export"):
        plan(until, space=RATE)
    for until in ("test", "register"):
        with pytest.raises(InputError, match="the stage test needs its folders: .*query.*--until export"):
            plan(until, space=RATE)
    query = write_crops(tmp_path / "query", 2)
    folders = {"query_dataset_dir": str(query), "test_dataset_dir": str(tmp_path / "gone")}
    with pytest.raises(InputError, match="gone"):
        plan("test", spec={"dataset": folders}, space=RATE)
    folders["test_dataset_dir"] = str(query)
    assert plan("test", spec={"dataset": folders}, space=RATE)
    (query / "0001_c1s1_000000_00.jpg").write_bytes(b"no picture")
    with pytest.raises(InputError, match="the stage test needs its folders: cannot read the image"):
        plan("test", spec={"dataset": folders}, space=RATE)


def test_the_files_of_every_test_set_are_counted(plan: Plan, tmp_path: Path) -> None:
    query, gallery = write_crops(tmp_path / "query", 1), write_crops(tmp_path / "gallery", 2)
    (gallery / "Thumbs.db").touch()
    (gallery / "0001_c1s1_000000_00.jpg").rename(gallery / "-1_c1s1_000000_00.jpg")
    (query / "notes.txt").touch()
    folders = {"query_dataset_dir": str(query), "test_dataset_dir": str(gallery)}
    spec = {"dataset": folders | {"extra_tests": [{"name": "night", **folders}]}}
    found = plan("test", spec=spec, space=RATE)
    expected = {
        "query": {"files": 5, "used": 4, "left_out": {"suffix": 1}},
        "gallery": {"files": 9, "used": 7, "left_out": {"system": 1, "junk": 1}},
    }
    assert {name: found["data"][name] for name in expected} == expected
    assert {name: found["data"][f"night {name}"] for name in expected} == expected
    assert not any("left out" in warning for warning in found["warnings"])  # no file that may be an image
    spec["dataset"]["extra_tests"] = [{"name": "night", **folders, "test_dataset_dir": str(tmp_path / "gone")}]
    with pytest.raises(InputError, match="the stage test needs its folders: there is no folder .*gone"):
        plan("test", spec=spec, space=RATE)


@pytest.mark.parametrize("part", ["test", "extra"])
def test_a_test_set_that_cannot_be_ranked_is_refused_before_the_search(plan: Plan, tmp_path: Path, part: str) -> None:
    query, gallery, single = (write_crops(tmp_path / f"of-{count}", count) for count in (3, 2, 1))
    good, bad = ({"query_dataset_dir": str(query), "test_dataset_dir": str(folder)} for folder in (gallery, single))
    test, extra = (bad, good) if part == "test" else (good, bad)
    spec = {"dataset": test | {"extra_tests": [{"name": "night", **extra}]}}
    assert plan("export", spec=spec, space=RATE)
    with pytest.raises(InputError, match=r"stage test needs .*of-1: every gallery image without junk has identity 1"):
        plan("test", spec=spec, space=RATE)


def held_out(identities: int, seed: int, fraction: float) -> int:
    records = [
        ImageRecord(Path(f"{identity:04d}_c{camera}_{frame}.jpg"), identity, camera)
        for identity in range(1, identities + 1)
        for camera in (1, 2)
        for frame in range(2)
    ]
    try:
        return split_by_identity(records, seed=seed, fraction=fraction).held_out
    except InputError:
        return 0


@pytest.mark.parametrize("count", [0, 1])
@pytest.mark.parametrize("repeat", [0, 1, 2])
def test_a_validation_split_of_any_repeat_that_cannot_be_ranked_is_refused(
    plan: Plan, tmp_path: Path, count: int, repeat: int
) -> None:
    """With few identities the split of one repeat holds out too few; without the check the search is paid for first."""
    sizes = ((seed, [held_out(20, seed + number, 0.1) for number in range(3)]) for seed in range(1000))
    seed = next(
        seed
        for seed, numbers in sizes
        if numbers[repeat] == count and min(numbers[:repeat] + numbers[repeat + 1 :]) > 1
    )
    dataset = {
        "train_dataset_dir": str(write_crops(tmp_path / "small", 20)),
        "validation_fraction": 0.1,
        "validation_seed": seed,
        "batch_size": 8,
    }
    reason = "every gallery image" if count else r"has no identity with images of two cameras"
    subject = f"repeat {repeat} of confirm, with dataset.validation_seed = {seed + repeat}" if repeat else "the search"
    for until in ("search", "confirm", "export"):
        if repeat and until == "search":
            assert plan(until, spec={"dataset": dataset}, space=RATE, confirm={"candidates": 1, "repeats": 2})
            continue
        with pytest.raises(InputError, match=f"the validation split of {subject}: .*{reason}"):
            plan(until, spec={"dataset": dataset}, space=RATE, confirm={"candidates": 1, "repeats": 2})


def test_a_repeat_with_too_few_identities_for_a_batch_is_refused(plan: Plan) -> None:
    base, repeat = (60 - held_out(60, seed, 0.2) for seed in (1, 2))
    assert base > repeat
    spec = {"dataset": {"batch_size": 2 * base, "num_instances": 2, "validation_seed": 1}}
    assert plan("search", spec=spec, space=RATE, confirm={"candidates": 1, "repeats": 1})
    with pytest.raises(InputError, match=f"a validation split leaves {repeat} for training"):
        plan("confirm", spec=spec, space=RATE, confirm={"candidates": 1, "repeats": 1})


def test_an_unreadable_image_is_found(plan: Plan, tmp_path: Path) -> None:
    (tmp_path / "train" / "0003_c2s1_000001_00.jpg").write_bytes(b"no picture")
    with pytest.raises(InputError, match="cannot read the image .*0003_c2s1_000001_00.jpg"):
        plan("search", space=RATE)


def test_training_data_is_wanted_at_once(plan: Plan, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no folder .*gone"):
        plan("preflight", spec={"dataset": {"train_dataset_dir": str(tmp_path / "gone")}})


@pytest.mark.parametrize(
    ("key", "entry"),
    [("train.optim.lr_steps", {"choice": [[5], [10]]}), ("train.num_epochs", {"int": [10, 20]})],
)
def test_a_searched_schedule_is_warned_of_under_asha(plan: Plan, key: str, entry: dict[str, Any]) -> None:
    assert any(key in line and "different points" in line for line in plan(space={key: entry})["warnings"])
    assert not any(key in line for line in plan(space={key: entry}, scheduler={"name": "none"})["warnings"])


def test_many_identities_are_not_warned_of(plan: Plan, tmp_path: Path) -> None:
    folder = write_crops(tmp_path / "many", 600)
    assert plan(spec={"dataset": {"train_dataset_dir": str(folder)}}, space=RATE)["warnings"] == []


def test_pretrained_weights_are_tried_and_written_down(plan: Plan, tmp_path: Path) -> None:
    file = tmp_path / "weights.pth"
    model = {"backbone": "resnet18", "input_height": 32, "input_width": 16, "pretrained_model_path": str(file)}
    with pytest.raises(InputError, match=r"weights\.pth"):
        plan(spec={"model": model})
    torch.save(timm.create_model("resnet18").state_dict(), file)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    assert plan(spec={"model": model})["pretrained"] == {str(file): digest}
    assert plan()["pretrained"] == {}
    with pytest.raises(InputError, match="nothing in it fits model.backbone = 'test_vit'"):
        plan(spec={"model": model | {"backbone": "test_vit", "input_height": 64, "input_width": 64}})


def test_weights_are_tried_with_every_backbone_of_the_space(plan: Plan, tmp_path: Path) -> None:
    file, other = tmp_path / "resnet18.pth", tmp_path / "vit.pth"
    torch.save(timm.create_model("resnet18").state_dict(), file)
    torch.save(timm.create_model("test_vit").state_dict(), other)
    small = {"input_height": 32, "input_width": 16}
    resnet = {"model.backbone": "resnet18", "model.pretrained_model_path": str(file)}
    vit = {"model.backbone": "test_vit", "model.input_height": 64, "model.input_width": 64}
    fitting = [resnet, vit | {"model.pretrained_model_path": str(other)}]
    digests = {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in (file, other)}
    assert plan(spec={"model": small}, space=RATE, bundle=fitting)["pretrained"] == digests
    mixed = [resnet, vit | {"model.pretrained_model_path": str(file)}]
    with pytest.raises(InputError, match=r"resnet18.pth: nothing in it fits model.backbone = 'test_vit'"):
        plan(spec={"model": small}, space=RATE, bundle=mixed)
    assert not (tmp_path / "runs").exists()


def test_all_weights_of_the_space_have_a_digest(tmp_path: Path) -> None:
    files = [str(tmp_path / name) for name in ("a.pth", "b.pth")]
    for file in files:
        Path(file).write_text(file)
    sweep = make_sweep(tmp_path, space=SPACE | {"model.pretrained_model_path": {"choice": ["", *files]}})
    digests = {file: hashlib.sha256(file.encode()).hexdigest() for file in files}
    assert weights_digests(sweep) == digests, "also those that no sample has"


def test_weights_that_changed_since_the_sweep_began_are_refused(tmp_path: Path) -> None:
    sweep, before = make_sweep(tmp_path), {"/a.pth": "1" * 64}
    require_same_weights(sweep, before, before)
    require_same_weights(sweep, {}, before)
    with pytest.raises(InputError, match="/a.pth has changed since the sweep simulated began"):
        require_same_weights(sweep, before, {"/a.pth": "2" * 64})


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"train": {"num_gpus": 2}}, "train.num_gpus = 2, .* in a sweep, resources of the search-space file says"),
        ({"train": {"resume_training_checkpoint_path": "x.pth"}}, "resume_training_checkpoint_path is for a single"),
    ],
)
def test_what_a_sweep_decides_itself_is_refused(plan: Plan, spec: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        plan(spec=spec)
