"""Comparison of a new version with the champion, by the results of both on common validation splits."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from reid_tune.errors import InputError
from reid_tune.evaluation.differences import Difference, mean_difference
from reid_tune.evaluation.npz import exact_names, read_npz
from reid_tune.files import atomic_path
from reid_tune.storage.temporary_folder import temporary_folder

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

CONFIRM_FILE = "confirm.npz"  # one of the files of a registered version
_ARRAYS = ("split", "repeat", "query", "identity", "average_precision")


@dataclass(frozen=True, eq=False)
class HoldoutResult:
    """Results of one model on one validation split without re-ranking, for the queries that have a match.

    Attributes:
        split: Key of the split: fingerprint of the data, `validation_seed` and fraction.
        queries: File names [m], without duplicates, in any order.
        identities: Identities [m], integers.
        average_precision: Average precisions [m], fractions.
    """

    split: str
    queries: np.ndarray
    identities: np.ndarray
    average_precision: np.ndarray


@dataclass(frozen=True)
class Verdict:
    """Decision whether a version may have an alias.

    Attributes:
        incumbent: The version that has the alias; None if no other version has it.
        difference: mAP of the new version minus that of the incumbent on common splits; None without common splits.
    """

    incumbent: int | None = None
    difference: Difference | None = None

    @property
    def is_accepted(self) -> bool:
        """Whether no other version has the alias, or the new one is significantly better."""
        return self.incumbent is None or (self.difference is not None and self.difference.is_significant)

    @property
    def reason(self) -> str:
        """Explanation of the decision."""
        if self.incumbent is None:
            return "no other version had the alias"
        if self.difference is None:
            return f"version {self.incumbent} has the alias, and there are no paired results over common splits"
        mean, low, high = self.difference.mean, self.difference.low, self.difference.high
        interval = "(no interval from one split)"
        if low is not None and high is not None:
            interval = f"[{100 * low:+.1f}, {100 * high:+.1f}]"
        gain = f"{100 * mean:+.1f} points of mAP {interval}"
        return f"{gain} against version {self.incumbent}, over {self.difference.repeats} common split(s)"


def compare_with_champion(
    connection: "MlflowClient", repeats: Sequence[HoldoutResult], incumbent: "ModelVersion | None"
) -> Verdict:
    """Compare a version's results with those of another version that has the alias, if there is one."""
    if incumbent is None:
        return Verdict()
    return Verdict(int(incumbent.version), compare(repeats, registered_repeats(connection, incumbent)))


def write_repeats(path: Path, repeats: Sequence[HoldoutResult]) -> None:
    """Write `split` [repeats] as text and, over all queries, `repeat`, `query`, `identity`, `average_precision`."""
    sizes = [len(repeat.queries) for repeat in repeats]
    arrays = {
        "split": np.array([repeat.split for repeat in repeats], str),
        "repeat": np.repeat(np.arange(len(repeats)), sizes),
        "query": _concatenate([repeat.queries for repeat in repeats], str),
        "identity": _concatenate([repeat.identities for repeat in repeats], np.int64),
        "average_precision": _concatenate([repeat.average_precision for repeat in repeats], float),
    }
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]


def _concatenate(arrays: Sequence[np.ndarray], dtype: type) -> np.ndarray:
    return np.concatenate([np.empty(0, dtype), *(np.asarray(array, dtype) for array in arrays)])


def read_repeats(path: Path) -> list[HoldoutResult]:
    """Read the results that `write_repeats` has written.

    Raises:
        InputError: the file is missing, damaged or of another kind.
    """
    split, repeat, query, identity, precision = read_npz(path, exact_names(*_ARRAYS)).values()
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
    """Return the results of a registered version; none if it has no results that can be read."""
    from mlflow.artifacts import download_artifacts, list_artifacts

    source = connection.get_model_version_download_uri(version.name, str(version.version))
    store = connection.tracking_uri
    if not any(Path(file.path).name == CONFIRM_FILE for file in list_artifacts(source, tracking_uri=store)):
        return []
    with temporary_folder() as folder:
        path = download_artifacts(f"{source}/{CONFIRM_FILE}", dst_path=str(folder), tracking_uri=store)
        try:
            return read_repeats(Path(path))
        except InputError:
            return []


def compare(challenger: Sequence[HoldoutResult], champion: Sequence[HoldoutResult]) -> Difference | None:
    """Return the mean difference in average precision, challenger minus champion, on their common splits.

    Common splits have the same key and the same queries. None if there are none.
    """
    champion_results = {result.split: result for result in champion}
    differences = [
        _query_differences(result, champion_results[result.split])
        for result in challenger
        if result.split in champion_results
    ]
    common = [difference for difference in differences if difference is not None]
    return mean_difference(common) if common else None


def _query_differences(first: HoldoutResult, second: HoldoutResult) -> tuple[np.ndarray, np.ndarray] | None:
    """Return first minus second and the identity for each query; None if the queries are not the same."""
    rows, other_rows = np.argsort(first.queries), np.argsort(second.queries)
    if not len(rows) or not np.array_equal(first.queries[rows], second.queries[other_rows]):
        return None
    return first.average_precision[rows] - second.average_precision[other_rows], first.identities[rows]
