from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reid_tune.config.experiment import Experiment, canonical_key, flatten, unflatten
from reid_tune.config.keys import nearest_key
from reid_tune.config.load import build_experiment, load_experiment, load_spec, with_parameters
from reid_tune.config.yaml_reader import parse_overrides
from reid_tune.errors import InputError

SECRET = "open-sesame-4711"


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "spec.yaml"
    path.write_text(text)
    return path


def fault(path: Path | str, *overrides: str) -> str:
    with pytest.raises(InputError) as caught:
        load_experiment(path, overrides)
    return str(caught.value)


BAD_FILES = {
    "unknown key": ("train: {num_epoch: 3}", ["unknown key train.num_epoch", "did you mean train.num_epochs?"]),
    "unknown section": ("modle: {backbone: resnet_50}", ["unknown key modle.backbone", "model.backbone?"]),
    "unknown top key": ("result_dir: x", ["unknown key result_dir", "results_dir?"]),
    "unlike any key": ("zzzz: 1", ["unknown key zzzz."]),
    "out of range": ("dataset: {prob: 1.5}", ["dataset.prob = 1.5", "less than or equal to 1"]),
    "out of range in a list": ("dataset: {pixel_std: [1, 0, 1]}", ["dataset.pixel_std.1 = 0", "greater than 0"]),
    "list too short": ("dataset: {pixel_mean: [1, 2]}", ["dataset.pixel_mean.2"]),
    "wrong type": ("train: {num_epochs: many}", ["train.num_epochs = 'many'", "valid integer"]),
    "fraction": ("train: {num_epochs: 1.5}", ["train.num_epochs = 1.5", "integer"]),
    "infinite": ("train: {optim: {weight_decay: .inf}}", ["train.optim.weight_decay = inf", "finite"]),
    "not a choice": ("model: {neck_feat: middle}", ["model.neck_feat = 'middle'", "'before' or 'after'"]),
    "scalar for a section": ("train: 5", ["train is a section, but its value is 5"]),
    "mapping for a value": ("train: {num_epochs: {a: 1}}", ["unknown key train.num_epochs.a"]),
    "broken YAML": ("model:\n  backbone: [resnet_50\ntrain: {}", ["line 3", "not valid YAML"]),
    "a YAML tag": ("results_dir: !!python/name:os.system ''", ["line 1", "not valid YAML"]),
    "no mapping": ("- model", ["does not contain a mapping"]),
    "empty": ("", ["does not contain a mapping"]),
    "a date in place of a number": ("train: {seed: 2024-01-01}", ["train.seed = '2024-01-01'", "valid integer"]),
    "two spellings": (
        "train: {optim: {steps: [1], lr_steps: [2]}}",
        ["train.optim.lr_steps is given twice", "[1]", "[2]", "keep one"],
    ),
    "interpolation to nothing": ("results_dir: ${nowhere}/x", ["results_dir", "the key 'nowhere' was not found"]),
    "interpolation to itself": ("results_dir: ${results_dir}/x", ["results_dir", "refers to itself"]),
    "broken interpolation": ("results_dir: ${", ["results_dir"]),
    "batch": (
        "dataset: {batch_size: 30}",
        ["dataset.batch_size = 30 is not a multiple", "dataset.num_instances = 4"],
    ),
    "one identity": ("dataset: {batch_size: 4}", ["dataset.batch_size = 4", "one identity", "needs two"]),
    "center loss without its type": (
        "model: {with_center_loss: true}",
        ["model.metric_loss_type = 'triplet'", "model.with_center_loss = True", "center or triplet_center"],
    ),
    "its type without center loss": (
        "model: {metric_loss_type: triplet_center}",
        ["model.metric_loss_type = 'triplet_center'", "set with_center_loss: true"],
    ),
}


@pytest.mark.parametrize(("text", "parts"), BAD_FILES.values(), ids=BAD_FILES.keys())
def test_a_bad_file_is_explained(tmp_path: Path, text: str, parts: list[str]) -> None:
    path = write(tmp_path, text)
    message = fault(path)
    assert message.startswith(str(path)) and "\n" not in message
    for part in parts:
        assert part in message


BAD_OVERRIDES = {
    "without =": (["train.num_epochs"], ["'train.num_epochs'", "write key=value"]),
    "without key": (["=3"], ["'=3'", "write key=value"]),
    "not YAML": (["train.optim.lr_steps=[1"], ["train.optim.lr_steps", "not valid YAML"]),
    "unknown key": (["train.epochs=3"], ["unknown key train.epochs"]),
    "a section": (["train.optim=3"], ["train.optim is a section, but its value is 3: write its keys below it."]),
    "out of range": (["train.optim.base_lr=-1"], ["train.optim.base_lr = -1", "greater than 0"]),
}


@pytest.mark.parametrize(("overrides", "parts"), BAD_OVERRIDES.values(), ids=BAD_OVERRIDES.keys())
def test_a_bad_override_is_explained(tmp_path: Path, overrides: list[str], parts: list[str]) -> None:
    message = fault(write(tmp_path, "model: {}"), *overrides)
    for part in parts:
        assert part in message


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    assert "No such file" in fault(tmp_path / "none.yaml")
    assert "directory" in fault(tmp_path)
    (tmp_path / "picture.yaml").write_bytes(b"\x89PNG\xff\xfe")
    assert "not a text file" in fault(tmp_path / "picture.yaml")


def test_all_faults_of_a_stage_are_reported_at_once(tmp_path: Path) -> None:
    keys = fault(write(tmp_path, "a: 1\ntrain: {epochs: 3, optim: 7}\nmodel: {neck: bnneck}"), "b=2")
    assert "4 problems" in keys and all(part in keys for part in ("key a", "train.epochs", "train.optim", "key b"))
    values = fault(write(tmp_path, "dataset: {prob: 2, batch_size: x}\ntrain: {num_epochs: 0}"))
    assert "3 problems" in values
    rules = fault(
        write(tmp_path, "dataset: {batch_size: 30, prob: 2}\nmodel: {with_center_loss: true}"),
        "dataset.validation_seed=3",
    )
    assert "4 problems" in rules and "validation_seed = 3 has no effect" in rules and "dataset.prob = 2" in rules


def test_interpolation_and_overrides(tmp_path: Path) -> None:
    text = "results_dir: out\ndataset: {batch_size: 32, val_batch_size: '${dataset.batch_size}'}\ntrain: {seed: 7}"
    path = write(tmp_path, text + "\nevaluate: {checkpoint: '${results_dir}/train/last.pth'}")
    experiment = load_experiment(
        path, ["dataset.batch_size=16", "train.optim.steps=[3, 5]", "train.grad_clip=2", "model.neck="]
    )
    assert (experiment.dataset.batch_size, experiment.dataset.val_batch_size) == (16, 16)
    assert experiment.evaluate.checkpoint == "out/train/last.pth"
    assert experiment.train.optim.lr_steps == (3, 5)
    assert experiment.train.clip_grad_norm == 2
    assert (experiment.train.seed, experiment.model.neck) == (7, "")
    assert load_experiment(path, ["results_dir=a=b"]).results_dir == "a=b"
    assert load_experiment(path, ["train.optim.base_lr=8e-4"]).train.optim.base_lr == 0.0008


def test_environment_variables_can_be_interpolated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REID_TUNE_TEST_FOLDER", "/data/here")
    path = write(tmp_path, "dataset: {train_dataset_dir: '${oc.env:REID_TUNE_TEST_FOLDER}/train'}")
    assert load_experiment(path).dataset.train_dataset_dir == "/data/here/train"


def test_null_sections_and_aliases_that_agree_are_fine(tmp_path: Path) -> None:
    experiment = load_experiment(write(tmp_path, "model:\ntrain: {optim: {steps: [2], lr_steps: [2]}}"))
    assert experiment.model == Experiment().model
    assert experiment.train.optim.lr_steps == (2,)


@pytest.mark.parametrize(
    "text",
    [
        f"encryption_key: [{SECRET}]",
        f"encryption_key: {{a: {SECRET}}}",
        f"encryption_key: {SECRET}${{nowhere}}",
        f"encryption_key: '${{{SECRET}'",
        f"encryption_key: {SECRET}\ntrain: {{epochs: 1}}\nresults_dir: []",
        f"encryption_key: {SECRET}\ntrain: {{num_epochs: 0}}",
        f"encryption_key: {SECRET}\nresults_dir: ${{nowhere}}",
    ],
)
def test_the_encryption_key_is_in_no_message(tmp_path: Path, text: str) -> None:
    assert SECRET not in fault(write(tmp_path, text))


@pytest.mark.parametrize("value", ["[{}", "[{}]", "${{{}", "{{a: {}}}", "'{}", "${{{}}}"])
def test_the_encryption_key_of_an_override_is_in_no_message(tmp_path: Path, value: str) -> None:
    message = fault(write(tmp_path, "model: {}"), "encryption_key=" + value.format(SECRET))
    assert "encryption_key" in message and SECRET not in message


def test_parameters_are_all_values_but_the_key() -> None:
    experiment = build_experiment({"encryption_key": SECRET}, {"train.num_epochs": 3}, "test")
    parameters = experiment.parameters()
    assert parameters["train.num_epochs"] == 3 and parameters["train.optim.lr_steps"] == (40, 70)
    assert "encryption_key" not in parameters and SECRET not in str(parameters)
    assert len(parameters) == len(flatten(experiment.model_dump())) - 1


def test_with_parameters_replaces_values_and_keeps_the_rules() -> None:
    base = build_experiment({}, {"train.num_epochs": 3}, "test")
    changed = with_parameters(base, {"train.optim.base_lr": 0.1, "train.optim.momentum": 0.5}, "trial 3")
    assert changed.train.optim.base_lr == 0.1 and changed.train.num_epochs == 3
    assert base.train.optim.base_lr == 0.00035
    assert with_parameters(base, {}, "trial 3") == base
    with pytest.raises(InputError, match="trial 3: dataset.prob = 2"):
        with_parameters(base, {"dataset.prob": 2}, "trial 3")
    with pytest.raises(InputError, match="trial 3: dataset.batch_size = 30 is not a multiple"):
        with_parameters(base, {"dataset.batch_size": 30}, "trial 3")
    with pytest.raises(InputError, match="train.optim.steeps"):
        with_parameters(base, {"train.optim.steeps": 1}, "trial 3")


def test_values_by_key_and_folders_of_tasks() -> None:
    experiment = build_experiment({"evaluate": {"results_dir": "elsewhere"}}, {}, "test")
    assert experiment.value("train.optim.name") == "Adam"
    assert experiment.value("train.optim") is experiment.train.optim
    for key in ("train.optim.nam", "train.optim.name.x", "value", "train.model_fields"):
        with pytest.raises(KeyError, match=key):
            experiment.value(key)
    assert experiment.task_dir("train") == Path("results/train")
    assert experiment.task_dir("evaluate") == Path("elsewhere")


def test_nearest_key_prefers_the_same_leaf() -> None:
    assert nearest_key("base_lr") == "train.optim.base_lr"
    assert nearest_key("train.base_lr") == "train.optim.base_lr"
    assert nearest_key("dataset.batchsize") == "dataset.batch_size"
    assert nearest_key("qqq") is None
    assert canonical_key("train.optim.steps") == "train.optim.lr_steps" and canonical_key("train.seed") == "train.seed"


def test_an_override_may_be_a_section() -> None:
    optim = build_experiment({"train": {"optim": {"name": "SGD"}}}, {"train.optim": {"base_lr": 1}}, "test").train.optim
    assert (optim.name, optim.base_lr) == ("SGD", 1)


def test_values_of_overrides_are_yaml() -> None:
    parsed = parse_overrides(["a=1", "b=[1, 2]", "c=true", "d=", "e=x=y", "f=null", "g='1'"])
    assert parsed == {"a": 1, "b": [1, 2], "c": True, "d": "", "e": "x=y", "f": None, "g": "1"}


KEYS = st.text(st.characters(exclude_characters="."), min_size=1, max_size=5)
TREES: st.SearchStrategy[dict[str, Any]] = st.dictionaries(
    KEYS,
    st.recursive(
        st.none() | st.integers() | st.text(max_size=3) | st.lists(st.integers(), max_size=2) | st.just({}),
        lambda inner: st.dictionaries(KEYS, inner, max_size=3),
        max_leaves=8,
    ),
    max_size=4,
)


@given(TREES)
def test_unflatten_is_the_inverse_of_flatten(tree: dict[str, Any]) -> None:
    flat = flatten(tree)
    assert unflatten(flat) == tree
    assert not any(isinstance(value, dict) and value for value in flat.values())


def test_a_key_written_twice_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "spec.yaml"
    file.write_text("train:\n  num_epochs: 3\n  num_epochs: 4\n")
    with pytest.raises(InputError, match=r"line 3, column 3: .*num_epochs is given twice"):
        load_experiment(file)


# (a spec that has a key twice, the key, its two values; None if they agree)
TWICE: list[tuple[dict[str, Any], str, tuple[Any, Any] | None]] = [
    ({"train": {"num_epochs": 5}, "train.num_epochs": 7}, "train.num_epochs", (5, 7)),
    ({"train.num_epochs": 7, "train": {"num_epochs": 5}}, "train.num_epochs", (7, 5)),
    ({"train": {"optim": {"base_lr": 0.1}, "optim.base_lr": 0.2}}, "train.optim.base_lr", (0.1, 0.2)),
    ({"train.optim": {"base_lr": 0.1}, "train": {"optim.base_lr": 0.2}}, "train.optim.base_lr", (0.1, 0.2)),
    ({"train.optim.steps": [1], "train": {"optim": {"lr_steps": [2]}}}, "train.optim.lr_steps", ([1], [2])),
    ({"train.gpu_ids": [0], "train": {"gpu_ids": [1]}}, "train.gpu_ids", ([0], [1])),
    ({"model": {"neck": "bnneck"}, "model.neck": ""}, "model.neck", ("bnneck", "")),
    ({"train": {"num_nodes": 1}, "train.num_nodes": 2}, "train.num_nodes", (1, 2)),
    ({"wandb": {"name": "a"}, "wandb.name": "b"}, "wandb.name", ("a", "b")),
    ({"train": {"num_epochs": 5}, "train.num_epochs": 5}, "train.num_epochs", None),
    ({"train": {"num_epochs": 5}, "train.num_epochs": None}, "train.num_epochs", None),
    ({"train": {"num_epochs": "???"}, "train.num_epochs": 5}, "train.num_epochs", None),
]


def test_a_secret_that_is_given_twice_is_in_no_message() -> None:
    with pytest.raises(InputError, match=r"wandb.key is given twice \(.*spellings\): keep one") as caught:
        build_experiment({"wandb": {"key": "hush"}, "wandb.key": "hushed"}, {}, "test")
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize(("tree", "key", "values"), TWICE)
def test_two_spellings_of_a_key_with_different_values_are_refused(
    tree: dict[str, Any], key: str, values: tuple[Any, Any] | None
) -> None:
    if values is None:
        assert build_experiment(tree, {}, "test").value(key) == 5
        return
    with pytest.raises(InputError, match="is given twice") as caught:
        build_experiment(tree, {}, "test")
    assert f"{key} is given twice" in str(caught.value) and f"as {values[0]!r} and {values[1]!r}" in str(caught.value)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(
            (key, value)
            for key in ("train.num_epochs", "train.optim.base_lr")
            for value in ("010", "1_0", "+01", "0_1")
        ),
        ("train.optim.base_lr", "0.000_1"),
        ("train.optim.base_lr", "1e-1_0"),
        ("train.num_epochs", "00"),
        ("train.num_epochs", " 010"),
        ("train.gpu_ids", ["01"]),
        ("dataset.pixel_mean", [0.5, "0_1", 0.5]),
        ("evaluate.input.height", "0128"),
        ("evaluate.input.std", ["01"]),
        ("train.optim.plateau_patience", "03"),
    ],
)
def test_a_number_that_tools_read_differently_is_refused(key: str, value: Any) -> None:
    message = "should be a number without leading zeros or underscores"
    with pytest.raises(InputError, match=message):
        build_experiment({}, {key: value}, "test")
    with pytest.raises(InputError, match=message):
        with_parameters(build_experiment({}, {}, "test"), {key: value}, "test")


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("train.num_epochs", "10", 10),
        ("train.num_epochs", "+10", 10),
        ("train.seed", "0", 0),
        ("train.seed", "-1", -1),
        ("train.optim.base_lr", "0.01", 0.01),
        ("train.optim.base_lr", "1e-03", 0.001),
        ("results_dir", "010", "010"),
        ("results_dir", "1_0", "1_0"),
        ("dataset.train_dataset_dir", ["010", "1_0"], ("010", "1_0")),
    ],
)
def test_texts_of_other_numbers_and_names_are_read(key: str, value: Any, expected: Any) -> None:
    assert build_experiment({}, {key: value}, "test").value(key) == expected


@pytest.mark.parametrize(
    ("folders", "expected"),
    [
        (["/data", ""], ("/data",)),
        (["/data", "${oc.env:REID_TUNE_NOT_SET,}"], ("/data",)),
        (["/data", "${oc.env:REID_TUNE_NOT_SET,null}"], ("/data",)),
        (["???", "/data", " "], ("/data",)),
        (["/data", None], ("/data",)),
        (["/data", "${dataset.query_dataset_dir}"], ("/data",)),
        ([""], ()),
        (["???"], ()),
        ([None, "${oc.env:REID_TUNE_NOT_SET,}"], ()),
    ],
)
def test_folders_of_a_list_that_are_not_given_are_left_out(folders: list[Any], expected: tuple[str, ...]) -> None:
    assert build_experiment({}, {"dataset.train_dataset_dir": folders}, "test").dataset.train_folders == expected


def test_given_keys_are_those_of_file_and_overrides(tmp_path: Path) -> None:
    file = tmp_path / "spec.yaml"
    file.write_text("train:\n  optim: {steps: [2], base_lr: 0.1}\n")
    keys = {"train.optim.lr_steps", "train.optim.base_lr", "train.clip_grad_norm"}
    assert load_spec(file, ["train.grad_clip=1"]).user_keys == keys


def test_unknown_keys_and_wrong_values_are_told_together(tmp_path: Path) -> None:
    message = fault(write(tmp_path, "foo: {bar: 1}"), "train.num_epochs=0", "train.gpu_ids=[1, 1]")
    assert message.count("\n") == 3 and "unknown key foo.bar" in message
    assert "train.num_epochs = 0" in message and "should name each GPU once" in message
