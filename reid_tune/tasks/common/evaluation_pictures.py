"""Pictures of an evaluation, checked before the work and drawn after it."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from reid_tune.config.experiment import Experiment
from reid_tune.errors import InputError
from reid_tune.evaluation.distance_plot import distance_plot
from reid_tune.evaluation.features import FeatureSet
from reid_tune.evaluation.matches import TopMatches, hardest_queries, random_queries
from reid_tune.evaluation.plots import ENDINGS, MAX_FRAMES, Frame, cmc_plot, matches_plot
from reid_tune.evaluation.score import Score
from reid_tune.evaluation.thresholds import Threshold
from reid_tune.files import check_output_file, require_writable
from reid_tune.identities import is_distractor
from reid_tune.tasks.common.calibration import Calibration
from reid_tune.training.image_sets import EvaluationImages

__all__ = ["Pictures", "SampledMatches", "draw_cmc", "sample_matches"]


class Pictures:
    """Pictures that the section `evaluate` requests, of one model on one test set.

    Raises:
        InputError: a name or a number in the spec makes a picture impossible.
    """

    def __init__(self, experiment: Experiment) -> None:
        self._targets = {name: _target(experiment, name) for name in ("cmc_curve", "sampled_matches", "distances")}
        self._cmc, self._matches, self._distances = self._targets.values()
        self._experiment, self._section = experiment, experiment.re_ranking
        frames = self._section.num_query * (self._section.max_rank + 1)
        if self._matches and frames > MAX_FRAMES:
            raise InputError(
                f"re_ranking.num_query = {self._section.num_query} and re_ranking.max_rank = {self._section.max_rank} "
                f"make {frames} images in evaluate.output_sampled_matches_plot; {MAX_FRAMES} are possible: lower them."
            )
        self._sampled: SampledMatches | None = None

    @property
    def requested_fields(self) -> list[str]:
        """Fields of the spec that request a picture."""
        return [_key(name) for name, path in self._targets.items() if path]

    def require_writable(self) -> None:
        """Make the folders of the pictures.

        Raises:
            InputError: a folder cannot be made, or files cannot be written in it.
        """
        for path in filter(None, self._targets.values()):
            require_writable(path)

    def top_matches(self, features: FeatureSet) -> TopMatches | None:
        """Return the collector of best matches that must see the ranking; None if no picture needs it."""
        return TopMatches(features, self._section.max_rank) if self._matches else None

    def keep_matches(self, images: EvaluationImages, top_matches: TopMatches, score: Score) -> None:
        """Keep the images of the best matches, see `sample_matches`."""
        self._sampled = sample_matches(self._experiment, images, top_matches, score)

    def draw(self, plain: Score, re_ranked: Score | None, calibration: Calibration | None) -> None:
        """Write the requested pictures."""
        if self._cmc:
            draw_cmc(plain, re_ranked, self._cmc, self._section.max_rank)
        if self._matches and self._sampled:
            self._sampled.draw(self._matches)
        if self._distances and calibration:
            threshold = calibration.threshold if isinstance(calibration.threshold, Threshold) else None
            distance_plot(calibration.histograms, threshold, self._distances)


@dataclass(frozen=True)
class SampledMatches:
    """Some queries and their best matches, with the images themselves.

    Attributes:
        frames: A row for each query: the query, then its matches.
        ranks: Number of matches in a row.
        title: Title of the picture.
    """

    frames: list[list[Frame]]
    ranks: int
    title: str

    def draw(self, path: Path) -> None:
        """Write the picture."""
        matches_plot(self.frames, self.ranks, self.title, path)


def sample_matches(
    experiment: Experiment, images: EvaluationImages, top_matches: TopMatches, score: Score
) -> SampledMatches:
    """Return queries chosen by `evaluate.sampled_matches` and `re_ranking.num_query`, with their best matches.

    Args:
        experiment: The spec.
        images: Queries, and a gallery without junk.
        top_matches: Collector of the ranking that was scored last.
        score: Score of that ranking.
    """
    section, is_hardest = experiment.re_ranking, experiment.evaluate.sampled_matches == "hardest"
    if is_hardest:
        chosen = hardest_queries(score, section.num_query)
    else:
        chosen = random_queries(score, section.num_query, max(experiment.train.seed, 0))
    score_rows = {query: row for row, query in enumerate(score.matched.tolist())}

    def image_frame(index: int, correct: bool | None = None) -> Frame:
        identity, camera = images.identities[index], images.cameras[index]
        name = "distractor" if is_distractor(identity) else f"id {identity}"
        return Frame(np.array(images.images[index]), f"{name}, cam {camera}", correct)

    def query_frame(query: int) -> Frame:
        frame, row = image_frame(query), score_rows[query]
        text = f"AP {100 * score.average_precision[row]:.0f} %, first match at {score.first_hit[row] + 1}"
        return replace(frame, caption=f"{frame.caption}\n{text}")

    rows = [
        [
            query_frame(match.query),
            *(image_frame(images.queries + g, c) for g, c in zip(match.gallery, match.correct.tolist(), strict=True)),
        ]
        for match in top_matches.matches(chosen)
    ]
    kind = "queries of lowest average precision" if is_hardest else "random queries"
    order = str(score.reranking) if score.reranking else "plain distances, no re-ranking"
    return SampledMatches(rows, section.max_rank, f"Sampled matches: {kind}\n{order}")


def draw_cmc(plain: Score, re_ranked: Score | None, path: Path, ranks: int = 50) -> None:
    """Draw the CMC curves of one or both scores of a model.

    Args:
        plain: Score of the plain distances.
        re_ranked: Score after re-ranking, if there is one.
        path: File of the picture.
        ranks: Largest rank of the curves.
    """
    by_name = {"plain": plain, "re-ranked": re_ranked}
    cmc_plot({name: score.cmc(ranks) for name, score in by_name.items() if score}, path)


def _key(name: str) -> str:
    return f"evaluate.output_{name}_plot"


def _target(experiment: Experiment, name: str) -> Path | None:
    value = getattr(experiment.evaluate, f"output_{name}_plot")
    return check_output_file(_key(name), Path(value), ENDINGS) if value else None
