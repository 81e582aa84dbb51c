"""The task `train`: one run of one spec."""

from pathlib import Path

import yaml

from reid_tune.files import make_folder, write_atomic
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
    directory = make_folder(experiment.task_dir("train"))
    write_atomic(directory / "experiment.yaml", experiment_yaml(experiment))
    resume = experiment.train.resume_training_checkpoint_path
    with TerminalReporter() as reporter:
        return train(experiment, reporter, directory, resume=Path(resume) if resume else None)


def experiment_yaml(experiment: Experiment) -> str:
    """The resolved spec as YAML, without the encryption key."""
    tree = experiment.model_dump(mode="json", exclude={"encryption_key"})
    return yaml.safe_dump(tree, sort_keys=False, allow_unicode=True)
