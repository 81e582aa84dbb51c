"""From images to features and scores."""

from collections.abc import Callable

import numpy as np
import torch

from reid_tune.data.augment import normalise
from reid_tune.evaluation.features import FeatureSet, feature_set
from reid_tune.modeling.network import ReIDNet
from reid_tune.spec.experiment import Experiment
from reid_tune.training.data import EvaluationImages
from reid_tune.training.step import autocast

__all__ = ["Embed", "network_embed", "features_of"]

# Images uint8 [n, H, W, 3] to embeddings float32 [n, dimension].
Embed = Callable[[np.ndarray], np.ndarray]


def network_embed(network: ReIDNet, experiment: Experiment, precision: str = "fp32") -> Embed:
    """Embed with a network on its device, in eval mode, in batches of `dataset.val_batch_size`."""
    dataset = experiment.dataset
    device = next(network.parameters()).device

    @torch.inference_mode()
    def embed(images: np.ndarray) -> np.ndarray:
        was_training = network.training
        network.eval()
        parts = []
        for start in range(0, len(images), dataset.val_batch_size):
            batch = torch.from_numpy(images[start : start + dataset.val_batch_size]).to(device)
            with autocast(precision, device):
                embedding = network(normalise(batch, dataset.pixel_mean, dataset.pixel_std))
            parts.append(embedding.float().cpu().numpy())
        network.train(was_training)
        return np.concatenate(parts)

    return embed


def features_of(images: EvaluationImages, embed: Embed) -> FeatureSet:
    """Embed queries and gallery."""
    features, queries = embed(images.images), images.queries
    return feature_set(
        features[:queries],
        images.identities[:queries],
        images.cameras[:queries],
        features[queries:],
        images.identities[queries:],
        images.cameras[queries:],
    )
