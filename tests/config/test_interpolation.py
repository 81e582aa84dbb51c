"""References in a spec: to other fields, to the environment, and to no secrets."""

import time
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from reid_tune.cli.commands import app
from reid_tune.config.interpolation import allow_variables
from reid_tune.config.load import build_experiment, build_spec
from reid_tune.errors import InputError

VALUE = "value-4711"

GOOD: list[tuple[dict[str, Any], str, Any]] = [
    ({"train.results_dir": "${results_dir}/x"}, "train.results_dir", "./results/x"),
    ({"results_dir": "", "train.results_dir": "${results_dir}/x"}, "train.results_dir", "./results/x"),
    ({"results_dir": "???", "train.results_dir": "${results_dir}"}, "train.results_dir", "./results"),
    ({"dataset.val_batch_size": "${dataset.batch_size}"}, "dataset.val_batch_size", 64),
    ({"dataset.val_batch_size": "${.batch_size}"}, "dataset.val_batch_size", 64),
    ({"results_dir": "${train.grad_clip}", "train.grad_clip": 3}, "results_dir", "3"),
    ({"evaluate.gpu_ids": "${train.gpu_ids}", "train.gpu_ids": [0, 2]}, "evaluate.gpu_ids", (0, 2)),
    ({"train.gpu_ids": ["${export.gpu_id}", 3]}, "train.gpu_ids", (0, 3)),
    ({"train.num_nodes": "${train.num_gpus}"}, "train.num_gpus", 1),
    ({"train.num_nodes": "${oc.env:REID_TUNE_UNSET,1}"}, "train.num_gpus", 1),
    ({"model_name": "net", "results_dir": "/r/${model_name}"}, "results_dir", "/r/net"),
    ({"evaluate.checkpoint": "${train.results_dir}/last.pth"}, "evaluate.checkpoint", "./results/train/last.pth"),
    ({"results_dir": "a-${train.seed}-${model.label_smooth}"}, "results_dir", "a-1234-True"),
    ({"results_dir": "\\${literal}"}, "results_dir", "${literal}"),
    ({"results_dir": "/r/${oc.env:REID_TUNE_NAME}"}, "results_dir", f"/r/{VALUE}"),
    ({"results_dir": "${ oc.env : REID_TUNE_NAME }"}, "results_dir", VALUE),
    ({"results_dir": "${oc.env:REID_TUNE_UNSET,'/tmp/x'}"}, "results_dir", "/tmp/x"),
    ({"results_dir": "${oc.env:REID_TUNE_UNSET,null}"}, "results_dir", "./results"),
    ({"results_dir": "${oc.env:REID_TUNE_EMPTY}"}, "results_dir", "./results"),
    ({"train.seed": "${oc.env:REID_TUNE_NUMBER}"}, "train.seed", 7),
    ({"train.gpu_ids": "${oc.decode:${oc.env:REID_TUNE_LIST}}"}, "train.gpu_ids", (0, 1)),
    ({"results_dir": "${oc.env:REID_TUNE_${model.neck}}"}, "results_dir", "of the neck"),
    ({"model.backbone": "${oc.env:REID_TUNE_BACKBONE}"}, "model.input_height", 384),
]


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "REID_TUNE_NAME": VALUE,
        "REID_TUNE_NUMBER": "7",
        "REID_TUNE_LIST": "[0, 1]",
        "REID_TUNE_EMPTY": "",
        "REID_TUNE_bnneck": "of the neck",
        "REID_TUNE_BACKBONE": "swin_tiny_patch4_window7_224",
        "REID_TUNE_REFERENCE": "${oc.env:REID_TUNE_NAME}",
        **dict.fromkeys(SECRETS, VALUE),
    }.items():
        monkeypatch.setenv(name, value)


SECRETS = [
    "AWS_SECRET_ACCESS_KEY",
    "AWS_ACCESS_KEY_ID",
    "GITHUB_PAT",
    "DB_PWD",
    "MLFLOW_TRACKING_PASSWORD",
    "HF_TOKEN",
    "my_token",
    "GOOGLE_APPLICATION_CREDENTIALS",
    "REID_TUNE_ENCRYPTION_KEY",
    "VAULT_PASSPHRASE",
]


@pytest.mark.parametrize(("values", "key", "expected"), GOOD)
def test_references_are_resolved(values: dict[str, Any], key: str, expected: Any) -> None:
    assert build_experiment({}, values, "test").value(key) == expected


BAD: list[tuple[dict[str, Any], str]] = [
    ({"results_dir": "${nowhere}"}, "results_dir: the key 'nowhere' was not found."),
    ({"results_dir": "${results_dir}/x"}, "results_dir: it refers to itself, through results_dir."),
    (
        {"results_dir": "${train.results_dir}", "train.results_dir": "${results_dir}"},
        "it refers to itself, through results_dir and train.results_dir.",
    ),
    ({"results_dir": "${"}, "results_dir: the } of a ${ is missing."),
    ({"results_dir": "${" * 100 + "}" * 100}, "nested more than 20 deep"),
    (
        {"results_dir": "${oc.create:{}}"},
        "results_dir: ${oc.create:...} is not supported: use ${key} or ${oc.env:NAME}.",
    ),
    ({"results_dir": "${oc.env:REID_TUNE_UNSET}"}, "the environment variable REID_TUNE_UNSET is not set."),
    ({"results_dir": "${oc.env:}"}, "needs the name of an environment variable."),
    ({"results_dir": "${oc.env:A B}"}, "needs the name of an environment variable."),
    ({"results_dir": "x/${train.gpu_ids}"}, "${train.gpu_ids} is a list or a section, which cannot be part of a text."),
    ({"results_dir": "x/${train}"}, "the key 'train' was not found."),
    ({"encryption_key": "abc", "results_dir": "${encryption_key}"}, "encryption_key is a secret, to which no other"),
    ({"train.seed": "${oc.decode:[}"}, "train.seed: the argument of oc.decode is not YAML."),
]


@pytest.mark.parametrize(("values", "message"), BAD, ids=[str(values)[:50] for values, _ in BAD])
def test_a_reference_that_cannot_be_resolved_is_one_sentence(values: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        build_experiment({}, values, "test")
    assert message in str(caught.value) and len(str(caught.value).splitlines()) <= 3


def test_references_that_double_at_each_step_are_limited() -> None:
    keys = ["results_dir", *(f"{task}.results_dir" for task in ("train", "evaluate", "inference", "export"))]
    keys += [f"{task}.{name}" for task in ("evaluate", "inference") for name in ("checkpoint", "query_dataset")]
    values = {key: ("x" * 50 + f"${{{other}}}") * 8 for key, other in zip(keys, keys[1:], strict=False)}
    with pytest.raises(InputError, match="the references of the spec expand to more than 100,000 characters"):
        build_experiment({}, values | {keys[-1]: "x" * 50}, "test")


def chain(last: Any, item: Any = "${{{}}}") -> dict[str, Any]:
    """Return lists of three references to the next list, 18 deep."""
    return {f"wandb.k{i}": [_replace(item, f"wandb.k{i + 1}")] * 3 for i in range(18)} | {"wandb.k18": last}


def _replace(item: Any, name: str) -> Any:
    return {"a": item["a"].format(name)} if isinstance(item, dict) else item.format(name)


EXPANSIONS: dict[str, tuple[dict[str, Any], str]] = {
    "lists in lists": (chain(["a", "b"]), "cannot be a part of a list"),
    "an empty list": (chain([]), "cannot be a part of a list"),
    "lists in sections of lists": (chain(["a"], {"a": "${{{}}}"}), "cannot be a part of a list"),
    "a decoded list": (chain("${oc.decode:[a, b]}"), "cannot be a part of a list"),
    "a decoded list of lists": ({"wandb.k0": ["${oc.decode:[[a], [b]]}"]}, "cannot be a part of a list"),
    "a long text": ({"wandb.k0": ["${wandb.k1}"] * 200, "wandb.k1": "x" * 1000}, "expand to more than 100,000"),
    "a long text of the environment": ({"wandb.k0": ["${oc.env:REID_TUNE_LONG}"] * 5000}, "expand to more than 100,00"),
    "a long text in sections": ({"wandb.k0": [{"a": "${wandb.k1}"}] * 200, "wandb.k1": "x" * 1000}, "expand to more"),
}


@pytest.mark.parametrize("key", ["model.backbone", "dataset.train_dataset_dir", "dataset.extra_tests"])
@pytest.mark.parametrize(("values", "problem"), EXPANSIONS.values(), ids=EXPANSIONS)
def test_lists_of_references_cannot_multiply_their_values(
    values: dict[str, Any], problem: str, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REID_TUNE_LONG", "x" * 1000)
    start = time.perf_counter()
    with pytest.raises(InputError, match=problem):
        build_experiment({}, values | {key: "${wandb.k0}"}, "test")
    assert time.perf_counter() - start < 2


@pytest.mark.parametrize("name", SECRETS)
def test_a_variable_that_looks_like_a_secret_is_read_only_if_the_user_allows_it(name: str) -> None:
    for text in (f"${{oc.env:{name}}}", f"a/${{oc.env:{name},b}}/c"):
        with pytest.raises(InputError, match=f"variable {name} may hold a secret: add --allow-env {name}") as caught:
            build_experiment({}, {"results_dir": text}, "test")
        assert VALUE not in str(caught.value)
        with allow_variables(["OTHER", name]):
            assert VALUE in build_experiment({}, {"results_dir": text}, "test").results_dir
    with pytest.raises(InputError, match="--allow-env"):
        build_experiment({}, {"results_dir": f"${{oc.env:{name}}}"}, "test")


@pytest.mark.parametrize(
    "key",
    [
        *("train.seed", "train.optim.name", "model.neck", "dataset.pixel_mean", "dataset.batch_size", "model.feat_dim"),
        *("re_ranking.re_ranking", "train.compile", "dataset.sampler", "train.optim.lr_steps", "evaluate.fmr"),
        *("train.optim.lr_monitor", "model.pretrain_hw_ratio", "train.num_nodes", "model.jpm"),
    ],
)
@pytest.mark.parametrize("form", ["{}", "a {}", "[{}]"])
def test_no_message_shows_a_value_of_the_environment(key: str, form: str) -> None:
    value: Any = form.format("${oc.env:REID_TUNE_NAME}")
    try:
        notes = build_spec({}, {key: [value] if form.startswith("[") else value}, "test").notes
    except InputError as error:
        notes = (str(error),)
    assert notes and not any(VALUE in note for note in notes)


def test_values_of_the_environment_are_not_resolved_again() -> None:
    text = "${oc.env:REID_TUNE_REFERENCE}"
    assert build_experiment({}, {"results_dir": text}, "test").results_dir == "${oc.env:REID_TUNE_NAME}"


COMMANDS = [
    ["spec", "validate", "SPEC"],
    ["train", "-e", "SPEC"],
    ["evaluate", "-e", "SPEC"],
    ["inference", "-e", "SPEC"],
    ["export", "-e", "SPEC"],
    ["check-data", "-e", "SPEC"],
    ["split", "-e", "SPEC", "split"],
    ["sweep", "SWEEP", "--dry-run"],
    ["space", "show", "SWEEP"],
]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
def test_commands_that_read_a_spec_have_the_option(command: list[str], tmp_path: Path) -> None:
    spec = tmp_path / "spec.yaml"
    spec.write_text("results_dir: a${oc.env:HF_TOKEN}\ndataset: {batch_size: 30, padding: -1, pixel_std: 0}\n")
    sweep = tmp_path / "sweep.yaml"
    sweep.write_text(
        "{name: x, spec: spec.yaml, storage: runs, budget: {trials: 2}, registry: {model: x}, "
        "space: {train.optim.base_lr: {uniform: [0.1, 0.2]}}}"
    )
    arguments = [{"SPEC": str(spec), "SWEEP": str(sweep)}.get(word, word) for word in command]
    refused = CliRunner().invoke(app, arguments)
    assert isinstance(refused.exception, InputError) and "add --allow-env HF_TOKEN" in str(refused.exception)
    allowed = CliRunner().invoke(app, [*arguments, "--allow-env", "OTHER", "--allow-env", "HF_TOKEN"])
    assert isinstance(allowed.exception, InputError) and "--allow-env" not in str(allowed.exception)
    assert VALUE not in str(allowed.exception)
    refused = CliRunner().invoke(app, arguments)
    assert "--allow-env" in str(refused.exception), "an earlier command allows nothing to a later one"
