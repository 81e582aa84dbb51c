"""Check of pretrained weights: each file fits the backbones with which a sweep trains it, and does not change."""

from collections.abc import Mapping, Sequence

from reid_tune.config.experiment import Experiment
from reid_tune.config.model import pretrained_choice
from reid_tune.errors import InputError
from reid_tune.journal.provenance import weights_digest
from reid_tune.modeling.network import build_seeded_network
from reid_tune.search_space.load import SweepConfig
from reid_tune.training.pretrained import load_pretrained

__all__ = ["load_weights_of", "require_same_weights"]

# Combinations of backbone and weights; each takes about a second.
_MAX_COMBINATIONS = 24


def load_weights_of(sweep: SweepConfig, samples: Sequence[Experiment]) -> tuple[dict[str, str], list[str]]:
    """Load the weights of the combinations of backbone and weights in the samples into their networks.

    Args:
        sweep: Sweep with the spec.
        samples: Specs of the space.

    Returns:
        The SHA-256 digest of each file that the spec or the space names, and a warning if there are too many
        combinations to load all.

    Raises:
        InputError: a file cannot be read, or does not fit its backbone.
    """
    combinations: dict[tuple[str, ...], Experiment] = {}
    for experiment in (sweep.experiment, *samples):
        model = experiment.model
        if pretrained_choice(model) and model.pretrained_model_path:
            key = (model.backbone, model.pretrained_model_path, model.pretrain_choice)
            combinations.setdefault(key, experiment)
    for experiment in list(combinations.values())[:_MAX_COMBINATIONS]:
        load_pretrained(build_seeded_network(experiment.model, 0, 0), experiment, ())
    digests = {file: weights_digest(file) for file in sweep.weights}
    omitted = len(combinations) - _MAX_COMBINATIONS
    if omitted <= 0:
        return digests, []
    return digests, [
        f"the space has {len(combinations)} combinations of backbone and weights: {omitted} of them were not loaded."
    ]


def require_same_weights(sweep: SweepConfig, before: Mapping[str, str], now: Mapping[str, str]) -> None:
    """Reject a file of pretrained weights that has changed since the sweep began or its space named the file.

    Args:
        sweep: Sweep that is resumed.
        before: Digest by file in the log.
        now: Digest by file.

    Raises:
        InputError: a digest differs.
    """
    for file, digest in before.items():
        if now.get(file, digest) != digest:
            raise InputError(
                f"{file} has changed since the sweep {sweep.file.name} began (SHA-256 {digest[:12]}... there, "
                f"{now[file][:12]}... now): restore the file, or set another name with sweep.name=NAME."
            )
