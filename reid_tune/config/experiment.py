"""The spec of one experiment, and access to its values by dotted key."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field
from pydantic.fields import FieldInfo

from reid_tune.config.base import Section
from reid_tune.config.dataset import Dataset
from reid_tune.config.model import Model
from reid_tune.config.task_sections import Evaluate, Export, Inference, ReRankingSection
from reid_tune.config.train import Train

__all__ = ["Experiment", "canonical_key", "flatten", "leaf_fields", "leaves", "unflatten"]

# Alternative spellings that the documentation pages use.
ALIASES = {"train.optim.steps": "train.optim.lr_steps", "train.grad_clip": "train.clip_grad_norm"}


class Experiment(Section):
    results_dir: str = Field("./results", min_length=1, description="Folder of all results.")
    encryption_key: str | None = Field(
        None,
        repr=False,
        description="Passphrase that encrypts checkpoints, in the age format. Better set in the environment, which "
        "overrides the spec: REID_TUNE_ENCRYPTION_KEY, or REID_TUNE_ENCRYPTION_KEY_FILE with the name of a file.",
    )
    model: Model = Field(default_factory=Model, description="Network.")
    dataset: Dataset = Field(default_factory=Dataset, description="Data and augmentation.")
    re_ranking: ReRankingSection = Field(default_factory=ReRankingSection, description="k-reciprocal re-ranking.")
    train: Train = Field(default_factory=Train, description="Training.")
    evaluate: Evaluate = Field(default_factory=Evaluate, description="Evaluation.")
    inference: Inference = Field(default_factory=Inference, description="Embeddings of images.")
    export: Export = Field(default_factory=Export, description="ONNX export.")

    def value(self, key: str) -> Any:
        """Return the value at a dotted key.

        Raises:
            KeyError: The schema has no such key.
        """
        node: Any = self
        for part in key.split("."):
            if not isinstance(node, Section) or part not in type(node).model_fields:
                raise KeyError(key)
            node = getattr(node, part)
        return node

    def task_dir(self, task: str) -> Path:
        """Return the results folder of a task: its `results_dir` if set, otherwise `<results_dir>/<task>`."""
        return Path(getattr(self, task).results_dir or Path(self.results_dir) / task)

    def to_yaml(self) -> str:
        """Return the resolved spec as YAML, without the encryption key."""
        tree = self.model_dump(mode="json", exclude={"encryption_key"})
        return yaml.safe_dump(tree, sort_keys=False, allow_unicode=True)

    def parameters(self) -> dict[str, Any]:
        """Return all values by dotted key, without the encryption key."""
        return {key: value for key, value in flatten(self.model_dump()).items() if key != "encryption_key"}


def canonical_key(key: str) -> str:
    """Return the schema's name of a key that may be one of the documented aliases."""
    return ALIASES.get(key, key)


def leaf_fields(section: type[Section] = Experiment, prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Yield all leaf fields of a section as (dotted key, field)."""
    for name, field in section.model_fields.items():
        annotation = field.annotation
        if isinstance(annotation, type) and issubclass(annotation, Section):
            yield from leaf_fields(annotation, f"{prefix}{name}.")
        else:
            yield prefix + name, field


def flatten(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Return nested mappings as one mapping by dotted key."""
    return dict(leaves(tree))


def leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the values of nested mappings with their dotted keys, which are not unique if keys have dots."""
    for key, value in tree.items():
        if isinstance(value, dict) and value:  # much faster than any mapping
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def unflatten(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Return nested mappings for a mapping by dotted key; the inverse of `flatten`."""
    tree: dict[str, Any] = {}
    for key, value in flat.items():
        *parents, leaf = key.split(".")
        node = tree
        for part in parents:
            node = node.setdefault(part, {})
        node[leaf] = value
    return tree
