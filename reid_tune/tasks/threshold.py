"""The task `threshold`: the largest distance at which two images count as the same identity."""

import hashlib
import json
from pathlib import Path

from reid_tune.errors import InputError
from reid_tune.evaluation.distance_plot import distance_plot
from reid_tune.evaluation.features import read_features
from reid_tune.evaluation.openset import FAR
from reid_tune.evaluation.plots import ENDINGS
from reid_tune.files import check_output_file, require_writable, write_atomic
from reid_tune.tasks.common.calibration import Calibration, calibrate
from reid_tune.training.devices import parse_device

__all__ = ["run_threshold"]


def run_threshold(
    path: Path,
    fmr: float,
    far: float = FAR,
    picture: Path | None = None,
    output: Path | None = None,
    device: str = "auto",
) -> Calibration:
    """Calibrate on an `.npz` file of features; write the picture of the distances and the numbers where wanted.

    Raises:
        InputError: file, rates or targets are unusable, or there are too few pairs for the rate.
    """
    place = parse_device(device)
    if picture:
        check_output_file("--picture", picture, ENDINGS)
    if output:
        check_output_file("--output", output, (".json",))
    features = read_features(path)
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    found = calibrate(features, fmr, {"features": str(path), "sha256": digest}, far, place)
    if isinstance(found.threshold, InputError):
        raise found.threshold
    for target in filter(None, (picture, output)):
        require_writable(target)
    if picture:
        distance_plot(found.histograms, found.threshold, picture)
    if output:
        write_atomic(output, json.dumps(found.as_dict(), indent=2) + "\n")
    return found
