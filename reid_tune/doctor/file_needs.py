"""Checks of what a spec or a search-space file needs: storage, tracking server, weights, data and cluster."""

import secrets
from collections.abc import Iterator
from pathlib import Path

from reid_tune.config.experiment import Experiment
from reid_tune.config.load import load_spec
from reid_tune.config.yaml_reader import read_yaml
from reid_tune.doctor.check import Check, check_call
from reid_tune.doctor.installation import check_disk
from reid_tune.errors import InputError
from reid_tune.search_space.load import load_sweep
from reid_tune.storage.object_store import is_url, open_store
from reid_tune.storage.s3 import S3Store
from reid_tune.tables import format_count

__all__ = ["check_cluster", "check_file", "check_storage", "check_tracking", "check_weights", "is_sweep_file"]


def is_sweep_file(path: Path) -> bool:
    """Return whether a file is a search-space file; otherwise it is a spec.

    Raises:
        InputError: the file cannot be read.
    """
    return not read_yaml(path).keys().isdisjoint(("space", "bundle"))


def check_file(path: Path) -> Iterator[Check]:
    """Check a spec or a search-space file, and then what it names."""
    loaded = list[tuple[Experiment, str | None, list[str]]]()

    def load() -> str:
        if is_sweep_file(path):
            sweep = load_sweep(path)
            loaded.append((sweep.experiment, sweep.file.storage, sweep.weights))
            return f"{path} is a valid search-space file"
        experiment = load_spec(path).experiment
        loaded.append((experiment, None, list(filter(None, [experiment.model.pretrained_model_path]))))
        return f"{path} is a valid spec"

    yield check_call("file", load)
    for experiment, storage, weights in loaded:
        yield from _check_data(experiment)
        yield from map(check_weights, weights)
        if storage is not None:
            yield check_storage(storage)
        else:
            yield check_disk("results", Path(experiment.results_dir).absolute(), "set results_dir to another folder")
    yield check_tracking()


def check_storage(storage: str) -> Check:
    """Check that files can be written in the storage of sweeps; nothing is left there."""
    if not is_url(storage):
        return check_disk("storage", Path(storage).absolute(), "set storage to another folder")

    def write() -> str:
        store, name = open_store(storage), f".doctor-{secrets.token_hex(6)}"
        store.write(name, b"reid-tune doctor")
        try:
            if store.read(name) != b"reid-tune doctor":
                raise InputError(f"{storage} returns other bytes than were written: check the server.")
        finally:
            store.remove(name)
        return f"files can be written at {storage}"

    return check_call("storage", write)


def check_tracking() -> Check:
    """Check the tracking server that MLFLOW_TRACKING_URI names."""
    from reid_tune.tracking.store import connection_error, redact, tracking_uri

    uri = tracking_uri()

    def connect() -> str:
        if error := connection_error(uri):
            raise InputError(error)
        return f"{redact(uri)} can be used"

    return check_call("tracking server", connect)


def check_cluster(address: str) -> Check:
    """Check that a Ray cluster answers at an address and accepts this machine's token and versions."""
    from reid_tune.execution.cluster.discovery import find_cluster

    return check_call("cluster", lambda: f"a Ray cluster answers at {find_cluster(address)}")


def check_weights(weights: str) -> Check:
    """Check that the file of pretrained weights can be read; nothing in it is executed."""

    def read() -> str:
        from reid_tune.checkpoints.checkpoint import is_encrypted_file
        from reid_tune.checkpoints.third_party_file import read_third_party_weights
        from reid_tune.storage.download_cache import ensure_local_file
        from reid_tune.tracking.registry.resolve import resolve
        from reid_tune.tracking.store import tracking_uri

        if weights.startswith(("models:/", "runs:/")):
            return f"{weights} is in {resolve(weights, tracking_uri())}"
        if weights.startswith("sweep:"):
            return f"{weights} is resolved when the sweep begins"
        path = ensure_local_file(weights)
        if not path.is_file():
            raise InputError(f"there is no file {weights}: check model.pretrained_model_path.")
        if not is_encrypted_file(path):
            read_third_party_weights(path)
        return f"{weights} can be read"

    return check_call("pretrained weights", read)


def _check_data(experiment: Experiment) -> Iterator[Check]:
    from reid_tune.data.records import read_image_folder

    dataset = experiment.dataset
    folders = {f"training data {number}": folder for number, folder in enumerate(dataset.train_folders, 1)}
    folders |= {"queries": dataset.query_dataset_dir or "", "gallery": dataset.test_dataset_dir or ""}
    for subject, folder in folders.items():
        if not folder:
            continue

        def read(folder: str = folder) -> str:
            if is_url(folder):  # Reading it would copy all images.
                return f"{folder} has {format_count(len(S3Store(folder).objects(recursive=False)), 'file')}"
            records = read_image_folder(folder).records
            with records[0].path.open("rb") as file:
                file.read(1)
            return f"{folder} has {format_count(len(records), 'image')}"

        yield check_call(subject, read)
