"""The task `threshold`: the largest distance at which two images count as the same identity."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

from reid_tune.errors import InputError, error_context
from reid_tune.evaluation.degenerate import examine_features
from reid_tune.evaluation.distance_plot import distance_plot
from reid_tune.evaluation.openset import FAR
from reid_tune.evaluation.plots import ENDINGS
from reid_tune.files import check_output_file, require_writable, write_atomic
from reid_tune.tasks.common.calibration import Calibration, calibrate
from reid_tune.tasks.common.feature_files import print_warnings, read_feature_file
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
    """Calibrate on a file of features, and write the requested files.

    Args:
        path: File of the features.
        fmr: Target share of the pairs of different identities within the threshold.
        far: Target share of impostors who raise an alarm.
        picture: Picture of the distances, .png, .pdf or .svg.
        output: JSON file of the numbers.
        device: Device of the computation, see `parse_device`.

    Raises:
        InputError: the file, a rate or a target is unusable, or there are too few pairs for the rate.
    """
    torch_device = parse_device(device)
    if picture:
        check_output_file("--picture", picture, ENDINGS)
    if output:
        check_output_file("--output", output, (".json",))
    features = read_feature_file(path)
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    with error_context(path):
        warnings = examine_features(features, torch_device)
    calibration = calibrate(features, fmr, {"features": str(path), "sha256": digest}, far, torch_device)
    if isinstance(calibration.threshold, InputError):
        raise calibration.threshold
    print_warnings(warnings)
    calibration = replace(calibration, warnings=tuple(warnings))
    for target in filter(None, (picture, output)):
        require_writable(target)
    if picture:
        assert not isinstance(calibration.threshold, InputError)
        distance_plot(calibration.histograms, calibration.threshold, picture)
    if output:
        write_atomic(output, json.dumps(calibration.as_dict(), indent=2) + "\n")
    return calibration
