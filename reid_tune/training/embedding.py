"""Embedding of images with a network."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from reid_tune.config.experiment import Experiment
from reid_tune.data.image_spec import ImageSpec
from reid_tune.data.normalisation import normalise
from reid_tune.data.transfer import to_device
from reid_tune.evaluation.distances import full_precision
from reid_tune.evaluation.features import FeatureSet, make_feature_set
from reid_tune.modeling.network import ReIDNet
from reid_tune.training.image_sets import EvaluationImages

__all__ = ["EmbedFunction", "Embedder", "ModelOpener", "compute_features", "make_embed_function"]

_IMAGES_PER_CALL = 4096  # images copied from the cache at a time, about 400 MB

# Function from images uint8 [n, H, W, 3] to embeddings float32 [n, dimension].
EmbedFunction = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Embedder:
    """Model on its device.

    Attributes:
        image_spec: Form of the images that the model expects.
        dimension: Length of an embedding.
        embed: Function from images to embeddings.
    """

    image_spec: ImageSpec
    dimension: int
    embed: EmbedFunction


# Picklable function that opens a model on a device.
ModelOpener = Callable[[torch.device], Embedder]


def make_embed_function(network: ReIDNet, experiment: Experiment) -> EmbedFunction:
    """Return a function that embeds with a network on its device.

    It uses true float32, eval mode, and batches of `dataset.val_batch_size`.
    """
    dataset, image_spec = experiment.dataset, ImageSpec.from_experiment(experiment)
    device = next(network.parameters()).device

    @torch.inference_mode()
    def embed(images: np.ndarray) -> np.ndarray:
        was_training = network.training
        network.eval()
        parts = []
        for start in range(0, len(images), dataset.val_batch_size):
            batch = to_device(images[start : start + dataset.val_batch_size], device)
            with full_precision():
                embedding = network(normalise(batch, image_spec))
            parts.append(embedding.cpu().numpy())
        network.train(was_training)
        return np.concatenate(parts)

    return embed


def compute_features(images: EvaluationImages, embed: EmbedFunction) -> FeatureSet:
    """Return the features of queries and gallery."""
    crops, queries = images.images, images.queries
    features = np.concatenate(
        [embed(crops[start : start + _IMAGES_PER_CALL]) for start in range(0, len(crops), _IMAGES_PER_CALL)]
    )
    return make_feature_set(
        features[:queries],
        images.identities[:queries],
        images.cameras[:queries],
        features[queries:],
        images.identities[queries:],
        images.cameras[queries:],
    )
