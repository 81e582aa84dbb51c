"""The task `triton e2e`: a sample of a test set through a server and back, scored and drawn."""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from reid_tune.data.records import Record, read_folder
from reid_tune.deploy.triton.client import TritonModel
from reid_tune.errors import InputError
from reid_tune.evaluation.matches import Watch
from reid_tune.evaluation.score import Score, scores
from reid_tune.files import make_folder, write_atomic
from reid_tune.spec.experiment import Experiment
from reid_tune.tasks.evaluate import reranking_of
from reid_tune.tasks.pictures import draw_cmc, sample_matches
from reid_tune.tasks.testsets import decode_test
from reid_tune.training.embed import Inputs, features_of

__all__ = ["EndToEnd", "end_to_end", "sample_identities"]


@dataclass(frozen=True)
class EndToEnd:
    """Scores of a sample, plain and re-ranked, and the folder with pictures and metrics."""

    plain: Score
    re_ranked: Score
    folder: Path

    def as_dict(self) -> dict[str, Any]:
        """Both as `evaluate` writes them."""
        return {"plain": self.plain.report(), "re_ranked": self.re_ranked.report()}


def end_to_end(
    model: TritonModel,
    query: Path,
    gallery: Path,
    folder: Path,
    *,
    identities: int,
    seed: int,
    batch_size: int,
    at_once: int,
) -> EndToEnd:
    """Write `sampled_matches.png`, `cmc_curve.png` and `metrics.json` of a sample of identities.

    The gallery has the images of the sampled identities alone, so that the numbers are higher than on the whole set.

    Args:
        identities: How many are drawn, without junk and distractors; all where there are fewer.
        seed: Decides which.

    Raises:
        InputError: a folder is unusable, or the server refuses a request.
        InfrastructureError: the server is away, also behind several attempts.
    """
    queries, others = read_folder(query).records, read_folder(gallery).records
    chosen = sample_identities(queries, others, identities, seed)
    own, their = ([record for record in records if record.identity in chosen] for records in (queries, others))
    inputs = Inputs(model.height, model.width, model.interpolation, grey=model.channels == 1)
    images = decode_test(own, their, inputs, threads=len(os.sched_getaffinity(0)))

    def embed(crops: np.ndarray) -> np.ndarray:
        batches = (crops[start : start + batch_size] for start in range(0, len(crops), batch_size))
        return np.concatenate(list(model.embed(batches, at_once)))

    features = features_of(images, embed)
    spec = Experiment()
    watch = Watch(features, spec.re_ranking.max_rank)
    plain, re_ranked = scores(features, [None, reranking_of(spec)], watch=watch)
    make_folder(folder)
    sample_matches(spec, images, watch, re_ranked).draw(folder / "sampled_matches.png")
    draw_cmc(plain, re_ranked, folder / "cmc_curve.png")
    result = EndToEnd(plain, re_ranked, folder)
    about = {"model": str(model), "identities": len(chosen), "seed": seed}
    write_atomic(folder / "metrics.json", json.dumps(about | result.as_dict(), indent=2) + "\n")
    return result


def sample_identities(
    queries: tuple[Record, ...], gallery: tuple[Record, ...], count: int, seed: int
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
