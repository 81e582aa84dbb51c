"""The whole spec of one experiment, and its values by dotted key."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field
from pydantic.fields import FieldInfo

from reid_tune.config.base import Section
from reid_tune.config.dataset import Dataset
from reid_tune.config.model import Model
from reid_tune.config.tasks import Evaluate, Export, Inference, ReRankingSection
from reid_tune.config.train import Train

__all__ = ["Experiment", "canonical_key", "leaf_fields", "flatten", "unflatten"]

# Spellings that the documentation pages mix.
ALIASES = {"train.optim.steps": "train.optim.lr_steps", "train.grad_clip": "train.clip_grad_norm"}


class Experiment(Section):
    results_dir: str = Field("./results", min_length=1, description="Folder of all results.")
    encryption_key: str | None = Field(
        None,
        repr=False,
        description="Passphrase of checkpoints, which are then written in the age format; better given by the "
        "environment, which wins over a spec: REID_TUNE_ENCRYPTION_KEY, or REID_TUNE_ENCRYPTION_KEY_FILE with a "
        "file's name.",
    )
    model: Model = Field(default_factory=Model, description="The network.")
    dataset: Dataset = Field(default_factory=Dataset, description="Data and augmentation.")
    re_ranking: ReRankingSection = Field(default_factory=ReRankingSection, description="k-reciprocal re-ranking.")
    train: Train = Field(default_factory=Train, description="Training.")
    evaluate: Evaluate = Field(default_factory=Evaluate, description="Evaluation.")
    inference: Inference = Field(default_factory=Inference, description="Embeddings of images.")
    export: Export = Field(default_factory=Export, description="ONNX export.")

    def value(self, key: str) -> Any:
        """The value at a dotted key; KeyError where the schema has none."""
        node: Any = self
        for part in key.split("."):
            if not isinstance(node, Section) or part not in type(node).model_fields:
                raise KeyError(key)
            node = getattr(node, part)
        return node

    def task_dir(self, task: str) -> Path:
        """Where a task writes: its own `results_dir`, else `<results_dir>/<task>`."""
        return Path(getattr(self, task).results_dir or Path(self.results_dir) / task)

    def to_yaml(self) -> str:
        """The resolved spec as YAML, without the encryption key."""
        tree = self.model_dump(mode="json", exclude={"encryption_key"})
        return yaml.safe_dump(tree, sort_keys=False, allow_unicode=True)

    def parameters(self) -> dict[str, Any]:
        """All values by dotted key, without the encryption key."""
        return {key: value for key, value in flatten(self.model_dump()).items() if key != "encryption_key"}


def canonical_key(key: str) -> str:
    """The key's own name where it is one of the documented aliases."""
    return ALIASES.get(key, key)


def leaf_fields(section: type[Section] = Experiment, prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """All leaf fields of the schema as (dotted key, field)."""
    for name, field in section.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, Section):
            yield from leaf_fields(kind, f"{prefix}{name}.")
        else:
            yield prefix + name, field


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one mapping by dotted key."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def unflatten(flat: Mapping[str, Any]) -> dict[str, Any]:
    """The inverse of `flatten`."""
    tree: dict[str, Any] = {}
    for key, value in flat.items():
        *parents, leaf = key.split(".")
        node = tree
        for part in parents:
            node = node.setdefault(part, {})
        node[leaf] = value
    return tree
