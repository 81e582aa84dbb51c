"""Whether a challenger beats the champion, by results of both over common splits."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from reid_tune.errors import InputError
from reid_tune.evaluation.differences import Difference, mean_difference
from reid_tune.evaluation.npz import read_npz
from reid_tune.files import atomic_path

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

__all__ = [
    "CONFIRM_FILE",
    "HoldoutResult",
    "Verdict",
    "compare",
    "compare_with_champion",
    "read_repeats",
    "registered_repeats",
    "write_repeats",
]

CONFIRM_FILE = "confirm.npz"  # among the files of a registered version
_ARRAYS = ("split", "repeat", "query", "identity", "average_precision")


@dataclass(frozen=True, eq=False)
class HoldoutResult:
    """One model's plain results on one hold-out split, for the queries with a match in any order.

    Attributes:
        split: What decides the split: fingerprint of the data, `validation_seed` and fraction.
        queries: File names [m], each once.
        identities: [m] integers.
        average_precision: [m] fractions.
    """

    split: str
    queries: np.ndarray
    identities: np.ndarray
    average_precision: np.ndarray


@dataclass(frozen=True)
class Verdict:
    """Whether a version may have an alias.

    Attributes:
        against: The version that has it; None where no other one does.
        difference: The new version minus that one over common splits, in mAP; None where there are none.
    """

    against: int | None = None
    difference: Difference | None = None

    @property
    def passed(self) -> bool:
        """Whether no other version has the alias, or the new one beats it beyond noise."""
        return self.against is None or (self.difference is not None and self.difference.is_significant)

    @property
    def reason(self) -> str:
        """The verdict in words."""
        if self.against is None:
            return "no other version had the alias"
        if self.difference is None:
            return f"version {self.against} has the alias, and no paired results over common splits to compare with"
        mean, low, high = (100 * value for value in (self.difference.mean, self.difference.low, self.difference.high))
        gain = f"{mean:+.1f} points of mAP [{low:+.1f}, {high:+.1f}]"
        return f"{gain} against version {self.against}, over {self.difference.repeats} common split(s)"


def compare_with_champion(
    connection: "MlflowClient", repeats: Sequence[HoldoutResult], holder: "ModelVersion | None"
) -> Verdict:
    """Compare a version's results with those of the version that has the alias, if there is another one."""
    if holder is None:
        return Verdict()
    return Verdict(int(holder.version), compare(repeats, registered_repeats(connection, holder)))


def write_repeats(path: Path, repeats: Sequence[HoldoutResult]) -> None:
    """Write `split` [repeats] as text and, over all queries, `repeat`, `query`, `identity`, `average_precision`."""
    sizes = [len(repeat.queries) for repeat in repeats]
    arrays = {
        "split": np.array([repeat.split for repeat in repeats], str),
        "repeat": np.repeat(np.arange(len(repeats)), sizes),
        "query": np.concatenate([np.asarray(repeat.queries, str) for repeat in repeats]),
        "identity": np.concatenate([np.asarray(repeat.identities, np.int64) for repeat in repeats]),
        "average_precision": np.concatenate([np.asarray(repeat.average_precision, float) for repeat in repeats]),
    }
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]


def read_repeats(path: Path) -> list[HoldoutResult]:
    """What `write_repeats` has written.

    Raises:
        InputError: the file is missing, damaged or another one.
    """
    split, repeat, query, identity, precision = read_npz(path, _ARRAYS).values()
    kinds = "".join(array.dtype.kind for array in (split, repeat, query, identity, precision))
    lengths = {array.shape for array in (repeat, query, identity, precision)}
    if kinds != "UiUif" or split.ndim != 1 or lengths != {(repeat.size,)}:
        raise InputError(f"{path} does not hold the results of a sweep's stage confirm; register the sweep again.")
    groups = [np.flatnonzero(repeat == number) for number in range(len(split))]
    return [
        HoldoutResult(str(key), query[rows], identity[rows], precision[rows])
        for key, rows in zip(split, groups, strict=True)
    ]


def registered_repeats(connection: "MlflowClient", version: "ModelVersion") -> list[HoldoutResult]:
    """Those of a registered version; none where it has none that can be read."""
    from mlflow.artifacts import download_artifacts, list_artifacts

    source = connection.get_model_version_download_uri(version.name, str(version.version))
    store = connection.tracking_uri
    if not any(Path(file.path).name == CONFIRM_FILE for file in list_artifacts(source, tracking_uri=store)):
        return []
    with tempfile.TemporaryDirectory() as folder:
        path = download_artifacts(f"{source}/{CONFIRM_FILE}", dst_path=folder, tracking_uri=store)
        try:
            return read_repeats(Path(path))
        except InputError:
            return []


def compare(challenger: Sequence[HoldoutResult], champion: Sequence[HoldoutResult]) -> Difference | None:
    """Challenger minus champion in average precision, over the splits that both have been measured on.

    A split is common where its key and its queries are equal; None where there is none.
    """
    theirs = {repeat.split: repeat for repeat in champion}
    pairs = [_pair(own, theirs[own.split]) for own in challenger if own.split in theirs]
    common = [pair for pair in pairs if pair is not None]
    return mean_difference(common) if common else None


def _pair(one: HoldoutResult, other: HoldoutResult) -> tuple[np.ndarray, np.ndarray] | None:
    """The queries' differences and identities; None where the queries are not the same."""
    mine, others = np.argsort(one.queries), np.argsort(other.queries)
    if not len(mine) or not np.array_equal(one.queries[mine], other.queries[others]):
        return None
    return one.average_precision[mine] - other.average_precision[others], one.identities[mine]
