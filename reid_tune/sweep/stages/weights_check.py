"""Check of networks and pretrained weights: each file fits the backbones that a sweep trains, and does not change."""

from collections.abc import Mapping, Sequence

from reid_tune.config.experiment import Experiment
from reid_tune.config.model import has_parts, pretrained_choice
from reid_tune.errors import InputError
from reid_tune.journal.provenance import weights_digest
from reid_tune.search_space.load import SweepConfig

__all__ = ["check_networks", "load_weights_of", "require_same_weights", "weights_digests"]

# Combinations of backbone and weights; each takes about a second.
_MAX_COMBINATIONS = 24


def weights_digests(sweep: SweepConfig) -> dict[str, str]:
    """Return the SHA-256 digest of each file of pretrained weights that a sweep names.

    Raises:
        InputError: a file cannot be read.
    """
    return {file: weights_digest(file) for file in sweep.weights}


def check_networks(experiments: Sequence[Experiment]) -> list[str]:
    """Build one network of each backbone and map in parts, without memory, and load all weights; return warnings.

    Raises:
        InputError: a network cannot be built or has no layer order that it needs, or a file does not fit.
    """
    from reid_tune.modeling.cost import network_cost

    models = [experiment.model for experiment in experiments]
    networks = {(m.backbone, m.parts, has_parts(m) and (m.input_height, m.last_stride)): m for m in models}
    for model in networks.values():
        network_cost(model)
    decayed = [experiment for experiment in experiments if experiment.train.optim.layer_decay < 1]
    for experiment in {experiment.model.backbone: experiment for experiment in decayed}.values():
        _require_layer_order(experiment)
    return load_weights_of(experiments)


def _require_layer_order(experiment: Experiment) -> None:
    import torch

    from reid_tune.modeling.network import build_seeded_network
    from reid_tune.optim.parameter_rates import rate_factors

    with torch.device("meta"):
        rate_factors(build_seeded_network(experiment.model, 0, 0), experiment.train.optim)


def load_weights_of(experiments: Sequence[Experiment]) -> list[str]:
    """Load the weights of each combination of backbone and weights in some specs into its network.

    Returns:
        A warning if there are too many combinations to load all.

    Raises:
        InputError: a file cannot be read, or does not fit its backbone.
    """
    from reid_tune.modeling.network import build_seeded_network
    from reid_tune.training.pretrained import load_pretrained

    combinations: dict[tuple[str, ...], Experiment] = {}
    for experiment in experiments:
        model = experiment.model
        if pretrained_choice(model) and model.pretrained_model_path:
            key = (model.backbone, model.pretrained_model_path, model.pretrain_choice)
            combinations.setdefault(key, experiment)
    for experiment in list(combinations.values())[:_MAX_COMBINATIONS]:
        load_pretrained(build_seeded_network(experiment.model, 0, 0), experiment, ())
    omitted = len(combinations) - _MAX_COMBINATIONS
    if omitted <= 0:
        return []
    return [
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
    references = {file: reference for reference, file in sweep.weights_references.items()}
    for file, digest in before.items():
        if now.get(file, digest) != digest:
            # Relative, as errors name references instead of their files.
            copy = file.removeprefix(f"{sweep.location}/")
            subject = f"the copy {copy} of {references[file]}" if file in references else file
            raise InputError(
                f"{subject} has changed since the sweep {sweep.file.name} began (SHA-256 {digest[:12]}... there, "
                f"{now[file][:12]}... now): restore the file, or set another name with sweep.name=NAME."
            )
