"""The task `train`: one run of one spec."""

import sys
from pathlib import Path

from reid_tune.files import write_atomic
from reid_tune.spec.experiment import Experiment
from reid_tune.training.data import shared_identities, split_records, validates_on_test
from reid_tune.training.loop import Trained, train
from reid_tune.training.progress import TerminalReporter

__all__ = ["run_train"]


def run_train(experiment: Experiment) -> Trained:
    """Train with progress on stderr into the task's folder, continuing what is there.

    Raises:
        InputError: the spec, its data or a checkpoint is unusable, or asks for what this version does not do.
        FailedRun: the loss is not finite.
    """
    directory = experiment.task_dir("train")
    for line in _data_lines(experiment):
        print(line, file=sys.stderr)
    resume = experiment.train.resume_training_checkpoint_path
    with _Reporter(experiment, directory) as reporter:
        return train(experiment, reporter, directory, resume=Path(resume) if resume else None)


class _Reporter(TerminalReporter):
    """Keeps the spec beside the checkpoints once spec, data and earlier checkpoint are known to go together."""

    def __init__(self, experiment: Experiment, directory: Path) -> None:
        super().__init__()
        self._experiment = experiment
        self._directory = directory

    def start(self, steps_per_epoch: int, first_epoch: int, num_epochs: int) -> None:
        write_atomic(self._directory / "experiment.yaml", self._experiment.to_yaml())
        super().start(steps_per_epoch, first_epoch, num_epochs)


def _data_lines(experiment: Experiment) -> list[str]:
    split, dataset = split_records(experiment), experiment.dataset
    identities = len({record.identity for record in split.train})
    cameras = len({record.camera for record in split.train})
    lines = [f"training: {len(split.train)} images, {identities} identities, {cameras} camera(s)"]
    if dataset.num_classes not in (751, identities):
        lines.append(
            f"warning: dataset.num_classes = {dataset.num_classes}, but the folder has {identities}: it counts."
        )
    if split.query:
        where = "held-out identities"
        if validates_on_test(experiment):
            where = "the test folders; what is selected by it is selected on test"
        if shared := shared_identities(split.train, split.query):
            lines.append(
                f"warning: {shared} identities are in training and in the queries: the score is worth nothing."
            )
        lines.append(f"validation: {len(split.query)} queries, {len(split.gallery)} gallery images, {where}")
    return lines
