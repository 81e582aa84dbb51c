"""The task `triton e2e`: a sample of a test set through a server and back, scored and drawn."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from reid_tune.config.experiment import Experiment
from reid_tune.data.image_cache.images import DecodedImages
from reid_tune.data.image_spec import ImageSpec
from reid_tune.data.images import decode_readable
from reid_tune.data.records import ImageRecord, read_image_folder
from reid_tune.deploy.triton.client import TritonModel
from reid_tune.errors import InputError
from reid_tune.evaluation.matches import TopMatches
from reid_tune.evaluation.score import Score, scores
from reid_tune.files import check_output_file, require_writable, write_atomic
from reid_tune.tasks.common.evaluation_pictures import draw_cmc, sample_matches
from reid_tune.tasks.evaluate import reranking_of
from reid_tune.tasks.triton_client import require_batch_size
from reid_tune.training.embedding import compute_features
from reid_tune.training.image_sets import EvaluationImages

__all__ = ["PICTURES", "EndToEndResult", "run_end_to_end", "sample_identities"]

PICTURES = ("sampled_matches.png", "cmc_curve.png")
_METRICS = "metrics.json"


@dataclass(frozen=True)
class EndToEndResult:
    """Scores of a sample, plain and re-ranked.

    Attributes:
        broken: What is wrong with images that were left out, in a line each.
    """

    plain: Score
    re_ranked: Score
    broken: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """Both as `evaluate` writes them."""
        return {"plain": self.plain.report(), "re_ranked": self.re_ranked.report()}


def run_end_to_end(
    model: TritonModel,
    query: Path,
    gallery: Path,
    folder: Path,
    *,
    identities: int,
    seed: int,
    batch_size: int,
) -> EndToEndResult:
    """Write `sampled_matches.png`, `cmc_curve.png` and `metrics.json` of a sample of identities.

    The gallery has the images of the sampled identities alone, so that the numbers are higher than on the whole set.

    Args:
        identities: How many are drawn, without junk and distractors; all where there are fewer.
        seed: Decides which.

    Raises:
        InputError: a folder, the batch or a file is unusable, or the server refuses a request.
        InfrastructureError: the server is away, also behind several attempts.
    """
    require_batch_size(model, batch_size)
    for name in (*PICTURES, _METRICS):
        require_writable(check_output_file("--output_path", folder / name))
    queries, others = read_image_folder(query).records, read_image_folder(gallery).records
    chosen = sample_identities(queries, others, identities, seed)
    own, their = ([record for record in records if record.identity in chosen] for records in (queries, others))
    images, broken = _decoded(own, their, model.preprocessing.image_spec)

    def embed(crops: np.ndarray) -> np.ndarray:
        batches = (crops[start : start + batch_size] for start in range(0, len(crops), batch_size))
        return np.concatenate(list(model.embed(batches)))

    features = compute_features(images, embed)
    spec = Experiment()
    watch = TopMatches(features, spec.re_ranking.max_rank)
    plain, re_ranked = scores(features, [None, reranking_of(spec)], watch=watch)
    matches, cmc = (folder / name for name in PICTURES)
    sample_matches(spec, images, watch, re_ranked).draw(matches)
    draw_cmc(plain, re_ranked, cmc)
    result = EndToEndResult(plain, re_ranked, broken)
    about = {"model": str(model), "identities": len(chosen), "seed": seed}
    write_atomic(folder / _METRICS, json.dumps(about | result.as_dict(), indent=2) + "\n")
    return result


def _decoded(
    query: Sequence[ImageRecord], gallery: Sequence[ImageRecord], image_spec: ImageSpec
) -> tuple[EvaluationImages, tuple[str, ...]]:
    """The images that can be read, and what is wrong with the others."""
    own, queries, broken = decode_readable(query, image_spec)
    their, others, more = decode_readable(gallery, image_spec)
    if not own or not their:
        raise InputError(f"no image of a folder can be read: {(broken if not own else more)[0]}")
    identities, cameras = (
        np.array([getattr(x, key) for x in (*own, *their)], np.int64) for key in ("identity", "camera")
    )
    source, row = np.repeat([0, 1], [len(own), len(their)]), np.r_[: len(own), : len(their)]
    return EvaluationImages(DecodedImages([queries, others], source, row), identities, cameras, len(own)), (
        *broken,
        *more,
    )


def sample_identities(
    queries: tuple[ImageRecord, ...], gallery: tuple[ImageRecord, ...], count: int, seed: int
) -> frozenset[int]:
    """Identities with queries and gallery images, drawn without order; junk (-1) and distractors (0) are none.

    Raises:
        InputError: there is none.
    """
    known = [{record.identity for record in records if record.identity > 0} for records in (queries, gallery)]
    both = np.array(sorted(known[0] & known[1]), np.int64)
    if not len(both):
        raise InputError("no identity has both queries and gallery images: check the two folders.")
    drawn = np.random.default_rng(seed).permutation(both)[:count]
    return frozenset(drawn.tolist())
