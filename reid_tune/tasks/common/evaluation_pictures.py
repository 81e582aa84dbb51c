"""The pictures of an evaluation: checked before the work, drawn behind it."""

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
from reid_tune.tasks.common.calibration import Calibration
from reid_tune.training.image_sets import EvaluationImages

__all__ = ["Pictures", "SampledMatches", "draw_cmc", "sample_matches"]


class Pictures:
    """The pictures that `evaluate` is asked for, of one model on one test set.

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
    def wanted(self) -> list[str]:
        """The fields that ask for a picture."""
        return [_key(name) for name, path in self._targets.items() if path]

    def require_writable(self) -> None:
        """Make the folders of the pictures."""
        for path in filter(None, self._targets.values()):
            require_writable(path)

    def watch(self, features: FeatureSet) -> TopMatches | None:
        """What must see the ranking, if anything."""
        return TopMatches(features, self._section.max_rank) if self._matches else None

    def take(self, images: EvaluationImages, watch: TopMatches, score: Score) -> None:
        """Keep the images of the best matches; see `sample_matches`."""
        self._sampled = sample_matches(self._experiment, images, watch, score)

    def draw(self, plain: Score, re_ranked: Score | None, calibration: Calibration | None) -> None:
        """Write the pictures."""
        if self._cmc:
            draw_cmc(plain, re_ranked, self._cmc, self._section.max_rank)
        if self._matches and self._sampled:
            self._sampled.draw(self._matches)
        if self._distances and calibration:
            found = calibration.threshold
            distance_plot(calibration.histograms, found if isinstance(found, Threshold) else None, self._distances)


@dataclass(frozen=True)
class SampledMatches:
    """A few queries with their best matches, with the images themselves."""

    frames: list[list[Frame]]
    ranks: int
    title: str

    def draw(self, path: Path) -> None:
        """Write the picture."""
        matches_plot(self.frames, self.ranks, self.title, path)


def sample_matches(experiment: Experiment, images: EvaluationImages, watch: TopMatches, score: Score) -> SampledMatches:
    """Queries that the spec chooses, as `evaluate.sampled_matches` and `re_ranking.num_query` say.

    Args:
        images: Of a gallery without junk.
        score: Of what was watched last.
    """
    section, hardest = experiment.re_ranking, experiment.evaluate.sampled_matches == "hardest"
    if hardest:
        chosen = hardest_queries(score, section.num_query)
    else:
        chosen = random_queries(score, section.num_query, max(experiment.train.seed, 0))
    places = {query: place for place, query in enumerate(score.matched.tolist())}

    def frame(place: int, correct: bool | None = None) -> Frame:
        identity, camera = images.identities[place], images.cameras[place]
        name = f"id {identity}" if identity else "distractor"
        return Frame(np.array(images.images[place]), f"{name}, cam {camera}", correct)

    def asked(query: int) -> Frame:
        own, place = frame(query), places[query]
        words = f"AP {100 * score.average_precision[place]:.0f} %, first match at {score.first_hit[place] + 1}"
        return replace(own, caption=f"{own.caption}\n{words}")

    rows = [
        [
            asked(found.query),
            *(frame(images.queries + g, c) for g, c in zip(found.gallery, found.correct.tolist(), strict=True)),
        ]
        for found in watch.matches(chosen)
    ]
    kind = "queries of lowest average precision" if hardest else "random queries"
    order = str(score.reranking) if score.reranking else "plain distances, no re-ranking"
    return SampledMatches(rows, section.max_rank, f"Sampled matches: {kind}\n{order}")


def draw_cmc(plain: Score, re_ranked: Score | None, path: Path, ranks: int = 50) -> None:
    """Draw the CMC curves of one or both scores of a model."""
    found = {"plain": plain, "re-ranked": re_ranked}
    cmc_plot({name: score.cmc(ranks) for name, score in found.items() if score}, path)


def _key(name: str) -> str:
    return f"evaluate.output_{name}_plot"


def _target(experiment: Experiment, name: str) -> Path | None:
    value = getattr(experiment.evaluate, f"output_{name}_plot")
    return check_output_file(_key(name), Path(value), ENDINGS) if value else None
