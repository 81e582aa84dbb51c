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

__all__ = ["Calibration", "calibrate", "read_threshold"]


@dataclass(frozen=True)
class Calibration:
    """What the distances of one set of images say about a threshold."""

    histograms: tuple[np.ndarray, np.ndarray]  # see `PairDistances`
    threshold: Threshold | InputError  # or why there is none
    open_set: OpenSet
    dimension: int
    data: dict[str, Any]  # the images that it is of

    def as_dict(self) -> dict[str, Any] | None:
        """The content of the file; None without a threshold."""
        if isinstance(self.threshold, InputError):
            return None
        about = {"dimension": self.dimension, "open_set": self.open_set.as_dict(), "data": self.data}
        return self.threshold.as_dict() | about

    def rows(self) -> dict[str, dict[str, Any]]:
        """The threshold for a table."""
        found = self.threshold
        if isinstance(found, InputError):
            return {}
        rates = {"FMR": found.fmr, "FNMR": found.fnmr, "EER": found.eer}
        return {
            "threshold": {"squared distance": f"{found.squared_distance:.5g}", "cosine": f"{found.cosine:.5g}"}
            | {f"{name} %": f"{100 * rate:.3g}" for name, rate in rates.items()}
            | {"same pairs": found.same, "different pairs": found.different}
        }

    def open_set_rows(self) -> dict[str, dict[str, Any]]:
        """The open-set identification for a table, by the number of enrolled identities."""
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
        fmr: The wanted share of the pairs of different identities within the threshold.
        data: What the features are of; the numbers of queries, gallery images and identities are added.
        far: The wanted share of impostors who raise an alarm.

    Raises:
        InputError: far is not between 0 and 1, or nothing but junk is left of a side.
    """
    strangers = open_set(features, far, device=device)
    pairs = PairDistances.of(features, device)
    try:
        threshold: Threshold | InputError = pairs.threshold(fmr)
    except InputError as error:
        threshold = error
    people = np.union1d(features.query_ids, features.gallery_ids)
    sizes = {
        "queries": len(features.query_ids),
        "gallery": len(features.without_junk().gallery_ids),
        "identities": int((people > 0).sum()),
    }
    dimension = features.query_features.shape[1]
    return Calibration(pairs.histograms, threshold, strangers, dimension, {**data, **sizes})


def read_threshold(path: Path, dimension: int) -> dict[str, str]:
    """The metadata for an exported model, from what `threshold` or, for one model, `evaluate` has written.

    Raises:
        InputError: the file cannot be read, has no threshold, or one of features of another dimension.
    """
    fault = f"export.threshold = {str(path)!r}"
    wanted = "give what `reid-tune threshold --output` or evaluate (its metrics.json) has written"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{fault} cannot be read ({error.strerror}); {wanted}.") from None
    except ValueError:
        raise InputError(f"{fault} is not a JSON file; {wanted}.") from None
    if isinstance(content, dict) and "checkpoints" in content:
        raise InputError(f"{fault} has the metrics of a folder of models; evaluate this one alone.")
    if isinstance(content, dict) and "plain" in content:
        content = content.get("threshold")
    try:
        values = {name: float(content[name]) for name in ("squared_distance", "cosine", "fnmr")}
        values["fmr"] = float(content["fmr"]["reached"])
        found, data = int(content["dimension"]), dict(content["data"])
    except (KeyError, TypeError, ValueError):
        raise InputError(f"{fault} has no threshold; {wanted}.") from None
    if not all(map(math.isfinite, values.values())):
        raise InputError(f"{fault} has a threshold that is not finite; {wanted}.")
    if not 0 <= values["squared_distance"] <= 4 or abs(1 - values["squared_distance"] / 2 - values["cosine"]) > 1e-3:
        raise InputError(f"{fault} has a squared distance and a cosine that do not go together; {wanted}.")
    if found != dimension:
        raise InputError(
            f"{fault} is of features with {found} values, but the model's have {dimension}; calibrate on its own."
        )
    return {f"threshold_{name}": str(value) for name, value in values.items()} | {"threshold_data": json.dumps(data)}
