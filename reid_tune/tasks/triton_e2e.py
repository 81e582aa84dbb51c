"""The task `triton e2e`: embed a sample of a test set on a server, score it and draw the results."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
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
from reid_tune.identities import is_person
from reid_tune.tasks.common.evaluation_pictures import draw_cmc, sample_matches
from reid_tune.tasks.common.model_scores import reranking_of
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
        plain: Score of the plain distances.
        re_ranked: Score after re-ranking.
        errors: Error of each image that was left out.
    """

    plain: Score
    re_ranked: Score
    errors: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return both scores in the format of `evaluate`."""
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

    The gallery has images of the sampled identities only, so the scores are higher than on the whole test set.

    Args:
        model: The model on the server.
        query, gallery: The two folders of images.
        folder: Folder of the files.
        identities: Number of identities that are drawn, without junk and distractors; all if there are fewer.
        seed: Seed of the draw.
        batch_size: Number of images in a request.

    Raises:
        InputError: a folder, the batch size or a file is unusable, or the server refuses a request.
        InfrastructureError: the server stays unreachable in several attempts.
    """
    require_batch_size(model, batch_size)
    for name in (*PICTURES, _METRICS):
        require_writable(check_output_file("--output_path", folder / name))
    query_records, gallery_records = (read_image_folder(path).records for path in (query, gallery))
    sample = sample_identities(query_records, gallery_records, identities, seed)
    queries, others = (
        [record for record in records if record.identity in sample] for records in (query_records, gallery_records)
    )
    images, errors = _decode_readable(queries, others, model.preprocessing.image_spec)
    features = compute_features(images, partial(_embed, model, batch_size))
    spec = Experiment()
    top_matches = TopMatches(features, spec.re_ranking.max_rank)
    plain, re_ranked = scores(features, [None, reranking_of(spec)], watch=top_matches)
    sample_matches(spec, images, top_matches, re_ranked).draw(folder / PICTURES[0])
    draw_cmc(plain, re_ranked, folder / PICTURES[1])
    result = EndToEndResult(plain, re_ranked, errors)
    settings = {"model": str(model), "identities": len(sample), "seed": seed}
    write_atomic(folder / _METRICS, json.dumps(settings | result.as_dict(), indent=2) + "\n")
    return result


def _embed(model: TritonModel, batch_size: int, crops: np.ndarray) -> np.ndarray:
    batches = (crops[start : start + batch_size] for start in range(0, len(crops), batch_size))
    return np.concatenate(list(model.embed(batches)))


def _decode_readable(
    query: Sequence[ImageRecord], gallery: Sequence[ImageRecord], image_spec: ImageSpec
) -> tuple[EvaluationImages, tuple[str, ...]]:
    """Return the images that can be read, and the errors of the others."""
    queries, query_crops, query_errors = decode_readable(query, image_spec)
    others, gallery_crops, gallery_errors = decode_readable(gallery, image_spec)
    if not queries or not others:
        raise InputError(f"no image of a folder can be read: {(gallery_errors if queries else query_errors)[0]}")
    identities, cameras = (
        np.array([getattr(record, key) for record in (*queries, *others)], np.int64) for key in ("identity", "camera")
    )
    sources = np.repeat([0, 1], [len(queries), len(others)])
    rows = np.r_[: len(queries), : len(others)]
    images = EvaluationImages(
        DecodedImages([query_crops, gallery_crops], sources, rows), identities, cameras, len(queries)
    )
    return images, (*query_errors, *gallery_errors)


def sample_identities(
    queries: tuple[ImageRecord, ...], gallery: tuple[ImageRecord, ...], count: int, seed: int
) -> frozenset[int]:
    """Draw identities with queries and gallery images; junk and distractors do not count.

    Args:
        queries, gallery: Records of the two folders; their order does not matter.
        count: Number of identities; all if there are fewer.
        seed: Seed of the draw.

    Raises:
        InputError: no identity has both.
    """
    query_identities, gallery_identities = (
        {record.identity for record in records if is_person(record.identity)} for records in (queries, gallery)
    )
    common = np.array(sorted(query_identities & gallery_identities), np.int64)
    if not len(common):
        raise InputError("no identity has both queries and gallery images: check the two folders.")
    drawn = np.random.default_rng(seed).permutation(common)[:count]
    return frozenset(drawn.tolist())
