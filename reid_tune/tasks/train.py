"""The task `train`: one run of one spec."""

from pathlib import Path

import yaml

from reid_tune.files import write_atomic
from reid_tune.spec.checks import require_built
from reid_tune.spec.experiment import Experiment
from reid_tune.training.loop import Trained, train
from reid_tune.training.progress import TerminalReporter

__all__ = ["experiment_yaml", "run_train"]


def run_train(experiment: Experiment) -> Trained:
    """Train with progress on stderr into the task's folder, continuing what is there.

    Raises:
        InputError: the spec, its data or a checkpoint is unusable, or asks for what this version does not do.
        FailedRun: the loss is not finite.
    """
    require_built(experiment)
    directory = experiment.task_dir("train")
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
        write_atomic(self._directory / "experiment.yaml", experiment_yaml(self._experiment))
        super().start(steps_per_epoch, first_epoch, num_epochs)


def experiment_yaml(experiment: Experiment) -> str:
    """The resolved spec as YAML, without the encryption key."""
    tree = experiment.model_dump(mode="json", exclude={"encryption_key"})
    return yaml.safe_dump(tree, sort_keys=False, allow_unicode=True)
