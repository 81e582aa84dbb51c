"""Which fields of a spec a task reads, and which it needs."""

from collections.abc import Callable, Collection, Mapping

from reid_tune.config.experiment import Experiment
from reid_tune.config.pydantic_messages import Fault
from reid_tune.errors import InputError

__all__ = ["TASKS", "is_read", "is_relevant", "require_fields"]

_TASK_SECTIONS = ("evaluate", "inference", "export")
# Fields that only a training reads.
_TRAINING = {
    *(f"model.{name}" for name in ("pretrain_choice", "pretrained_model_path", "no_margin")),
    *(f"model.{name}" for name in ("metric_loss_type", "with_center_loss", "label_smooth")),
    *(f"model.{name}" for name in ("label_smoothing", "dropout_rate")),
    *(f"model.{name}" for name in ("drop_path", "drop_out", "att_drop_rate", "id_loss_type", "sub_centers", "jpm")),
    *(f"dataset.{name}" for name in ("num_classes", "batch_size", "num_instances", "resident", "padding", "prob")),
    *(f"dataset.{name}" for name in ("re_prob", "color_jitter", "sampler", "validation", "validation_fraction")),
    *(f"dataset.{name}" for name in ("erasing", "affine", "grey_prob", "local_grey_prob", "blur")),
    *(f"dataset.{name}" for name in ("random_patch", "rand_augment")),
    *(f"dataset.{name}" for name in ("camera_aware", "folder_weights", "max_images_per_identity")),
    "dataset.validation_seed",
    "dataset.validation_unseen_by",
    "train",
    "wandb",
}
_CUBLAS = {"train.deterministic"}  # decides how an evaluation sums, too
_TESTING = {f"dataset.{name}" for name in ("test_dataset_dir", "query_dataset_dir", "extra_tests", "val_batch_size")}
_SAMPLING = {
    f"dataset.{name}"
    for name in ("batch_size", "num_instances", "validation", "validation_fraction", "validation_seed", "num_classes")
} | {"dataset.validation_unseen_by"}

# By task: keys and sections that it does not read, and exceptions to them.
_UNREAD: Mapping[str, tuple[Collection[str], Collection[str]]] = {
    "train": ({*_TASK_SECTIONS, "re_ranking"}, ()),
    "evaluate": (_TRAINING | {"inference", "export", "dataset.train_dataset_dir"}, _CUBLAS | {"train.seed"}),
    "inference": (
        _TRAINING | {"evaluate", "export", "re_ranking", "dataset.train_dataset_dir", "dataset.extra_tests"},
        _CUBLAS,
    ),
    "export": (_TRAINING | _TESTING | {"evaluate", "inference", "re_ranking"}, ()),
    "check-data": (
        {"model", *_TASK_SECTIONS, "re_ranking", *_TRAINING},
        {"model.input_height", "model.input_width"} | _SAMPLING,
    ),
    "split": ({"model", *_TASK_SECTIONS, "re_ranking", *_TRAINING}, _SAMPLING),
}
TASKS = tuple(_UNREAD)

_GALLERY = ("the folder of gallery images", "test_dataset", "dataset.test_dataset_dir")
_QUERY = ("the folder of query images", "query_dataset", "dataset.query_dataset_dir")
_CHECKPOINT = "a checkpoint, an .onnx file, models:/NAME@ALIAS or sweep:NAME"
# By task: what it needs, and the keys of which one must be given.
_NEEDED: Mapping[str, tuple[tuple[str, ...], ...]] = {
    "train": (("the folder of training images", "dataset.train_dataset_dir"),),
    "evaluate": ((_CHECKPOINT, "evaluate.checkpoint"), _GALLERY, _QUERY),
    "inference": ((_CHECKPOINT, "inference.checkpoint"), _GALLERY, _QUERY),
    "export": (("a checkpoint, models:/NAME@ALIAS or sweep:NAME", "export.checkpoint"),),
}


def is_read(key: str, task: str | None) -> bool:
    """Whether a task reads a key, which may be unknown; None stands for all tasks together."""
    if task is None:
        return True
    unread, exceptions = _UNREAD[task]
    parts = key.split(".")
    prefixes = {".".join(parts[:count]) for count in range(1, len(parts) + 1)}
    return bool(prefixes & set(exceptions)) or not prefixes & set(unread)


def is_relevant(fault: Fault, task: str | None) -> bool:
    """Whether a task reads the key of a fault, or the key of the same section that a misspelt one seems to mean."""
    if is_read(fault.key, task):
        return True
    is_sibling = fault.nearest and fault.nearest.rpartition(".")[0] == fault.key.rpartition(".")[0]
    return bool(is_sibling and fault.nearest and is_read(fault.nearest, task))


def require_fields(
    experiment: Experiment,
    task: str,
    source: str,
    origin: Callable[[str], str],
    line_of: Callable[[str], int | None],
) -> None:
    """Check that the fields are given without which a task cannot begin.

    Args:
        experiment: The spec.
        task: The task.
        source: Path of the spec, for the message.
        origin: Function that returns the key that is not given, for a key whose value is a reference to it.
        line_of: Function that returns the line of a key in the file, None for a key that is not there.

    Raises:
        InputError: A field is not given; the message names it, the file and the line.
    """
    for description, *names in _NEEDED.get(task, ()):
        keys = [name if "." in name else f"{task}.{name}" for name in names]
        if any(experiment.value(key) for key in keys):
            continue
        key = origin(next((key for key in keys if line_of(key)), keys[-1]))
        line = line_of(key)
        position = f"{source}, line {line}" if line else source
        raise InputError(f"{position}: {key} is not set: give {description}, in the spec or as {key}=...")
