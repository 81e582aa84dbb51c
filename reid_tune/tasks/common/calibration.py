"""Calibration of a decision threshold, and the metadata of one for an exported model."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from reid_tune.errors import InputError
from reid_tune.evaluation.features import FeatureSet
from reid_tune.evaluation.openset import FAR, OpenSet, open_set
from reid_tune.evaluation.thresholds import PairDistances, Threshold
from reid_tune.files import read_text

__all__ = ["Calibration", "calibrate", "read_threshold"]


@dataclass(frozen=True)
class Calibration:
    """Decision threshold by the distances of one set of images.

    Attributes:
        histograms: Distances of pairs of the same and of different identities, see `PairDistances`.
        threshold: The threshold, or the reason why there is none.
        open_set: Open-set identification.
        dimension: Number of values in an embedding.
        data: Description of the images.
        warnings: Sentences about embeddings and labels that make the rates doubtful, see `examine_rows`.
    """

    histograms: tuple[np.ndarray, np.ndarray]
    threshold: Threshold | InputError
    open_set: OpenSet
    dimension: int
    data: dict[str, Any]
    warnings: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any] | None:
        """Return the content of the file; None without a threshold."""
        if isinstance(self.threshold, InputError):
            return None
        context = {"dimension": self.dimension, "open_set": self.open_set.as_dict(), "data": self.data}
        return self.threshold.as_dict() | context | {"warnings": list(self.warnings)}

    def rows(self) -> dict[str, dict[str, Any]]:
        """Return the threshold for a table; empty without one."""
        threshold = self.threshold
        if isinstance(threshold, InputError):
            return {}
        rates = {"FMR": threshold.fmr, "FNMR": threshold.fnmr, "EER": threshold.eer}
        return {
            "threshold": {"squared distance": f"{threshold.squared_distance:.5g}", "cosine": f"{threshold.cosine:.5g}"}
            | {f"{name} %": f"{100 * rate:.3g}" for name, rate in rates.items()}
            | {"same pairs": threshold.same, "different pairs": threshold.different}
        }

    def open_set_rows(self) -> dict[str, dict[str, Any]]:
        """Return the open-set identification for a table, by the number of enrolled identities."""
        return {
            f"{row['identities']} enrolled": {
                "DIR": row["DIR"],
                "FAR": row["FAR"],
                "squared distance": f"{row['squared_distance']:.5g}",
                "genuine": round(row["genuine"]),
                "impostors": round(row["impostors"]),
                "intervals": {"DIR": row["DIR_range"]},
            }
            for row in self.open_set.rows
        }


def calibrate(
    features: FeatureSet, fmr: float, data: Mapping[str, Any], far: float = FAR, device: torch.device | str = "cpu"
) -> Calibration:
    """Find the threshold for a false-match rate, and the open-set identification at a false alarm rate.

    Args:
        features: Queries and gallery.
        fmr: Target share of the pairs of different identities within the threshold.
        data: Description of the images; the numbers of queries, gallery images and identities are added.
        far: Target share of impostors who raise an alarm.
        device: Device of the computation.

    Raises:
        InputError: far is not between 0 and 1, or the queries or the gallery are junk only.
    """
    identification = open_set(features, far, device=device)
    pairs = PairDistances.of(features, device)
    try:
        threshold: Threshold | InputError = pairs.threshold(fmr)
    except InputError as error:
        threshold = error
    identities = np.union1d(features.query_ids, features.gallery_ids)
    sizes = {
        "queries": len(features.query_ids),
        "gallery": len(features.without_junk().gallery_ids),
        "identities": int((identities > 0).sum()),
    }
    dimension = features.query_features.shape[1]
    return Calibration(pairs.histograms, threshold, identification, dimension, {**data, **sizes})


def read_threshold(path: Path, dimension: int) -> dict[str, str]:
    """Return the metadata of a threshold for an exported model.

    Args:
        path: File of `reid-tune threshold`, or `metrics.json` of `evaluate` for one model.
        dimension: Dimension of the model's embeddings.

    Raises:
        InputError: the file cannot be read, has no threshold, or was computed from features of another dimension.
    """
    subject = f"export.threshold = {str(path)!r}"
    hint = "give a file written by `reid-tune threshold --output`, or metrics.json of evaluate"
    try:
        content = json.loads(read_text(path))
    except OSError as error:
        raise InputError(f"{subject} cannot be read ({error.strerror}); {hint}.") from None
    except (ValueError, RecursionError):
        raise InputError(f"{subject} is not a JSON file; {hint}.") from None
    if isinstance(content, dict) and "checkpoints" in content:
        raise InputError(f"{subject} has the metrics of a folder of models; evaluate this one alone.")
    if isinstance(content, dict) and "plain" in content:
        content = content.get("threshold")
    try:
        values = {name: float(content[name]) for name in ("squared_distance", "cosine", "fnmr")}
        values["fmr"] = float(content["fmr"]["reached"])
        file_dimension, data = int(content["dimension"]), dict(content["data"])
    except (KeyError, TypeError, ValueError, OverflowError):
        raise InputError(f"{subject} has no threshold; {hint}.") from None
    if not all(map(math.isfinite, values.values())):
        raise InputError(f"{subject} has a threshold that is not finite; {hint}.")
    if not 0 <= values["squared_distance"] <= 4 or abs(1 - values["squared_distance"] / 2 - values["cosine"]) > 1e-3:
        raise InputError(f"{subject} has a squared distance and a cosine that contradict each other; {hint}.")
    if file_dimension != dimension:
        raise InputError(
            f"{subject} is of features with {file_dimension} values, but the model's have {dimension}; calibrate with "
            "features of this model."
        )
    return {f"threshold_{name}": str(value) for name, value in values.items()} | {"threshold_data": json.dumps(data)}
