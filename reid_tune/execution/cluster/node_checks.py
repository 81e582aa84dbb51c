"""Checks that all nodes of a cluster have the same code, data, weights and key, and share the storage."""

import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import reid_tune
from reid_tune.checkpoints.encryption import decrypt, encrypt
from reid_tune.config.encryption_key import find_passphrase
from reid_tune.config.experiment import Experiment
from reid_tune.errors import InfrastructureError, InputError, ReidTuneError
from reid_tune.files import output_error
from reid_tune.journal.provenance import training_file_digests
from reid_tune.search_space.load import SweepConfig
from reid_tune.storage.object_store import LocalStore, ObjectStore, is_url
from reid_tune.storage.s3 import S3Store

__all__ = ["check_nodes"]

_SHARED_ADVICE = "use a folder that all nodes mount, such as NFS, or s3://."
_NODE_SECONDS = 600.0  # for a node to read all training images
_UNPACK_SECONDS = 30.0  # for a node to unpack the package of a job
_UNPACK_PAUSE = 2.0  # seconds between two digests of a package, which are equal when it is complete


@dataclass(frozen=True)
class _Package:
    """This package, as a process has it: its version, its folder and the digest of its source."""

    version: str
    folder: str
    digest: str

    def __str__(self) -> str:
        return f"reid-tune {self.version} in {self.folder} (source {self.digest[:8]})"


@dataclass(frozen=True)
class _NodeFiles:
    """The files that a sweep needs, as a process finds them.

    Attributes:
        digests: Digests of data and weights, by their kind.
        error: Why they cannot be used; empty where they can.
    """

    digests: dict[str, str]
    error: str = ""


def check_nodes(sweep: SweepConfig) -> None:
    """Compare all nodes that can hold runs with this process; does nothing where this machine is the only node.

    Raises:
        InputError: the storage is not shared, or data, weights or key of a node are missing or differ.
        InfrastructureError: a node does not answer.
    """
    import ray

    this_node = ray.get_runtime_context().get_node_id()
    nodes = {node["NodeID"]: node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"] and _holds_runs(node)}
    if not nodes.keys() - {this_node}:
        return
    _require_same_package(nodes)
    spec, key_check = _spec_and_key_check(sweep)
    files = _read_files(spec, sweep.weights, key_check)
    if files.error:
        raise InputError(f"this machine: {files.error}")
    with _temporary_store(sweep) as store:
        files_of_nodes = _call_on_nodes(nodes, _mark_and_read_files, spec, sweep.weights, key_check, store)
        for node, node_files in files_of_nodes.items():
            _require_same_files(nodes[node], node_files, files)
        nodes = {node: nodes[node] for node in files_of_nodes}
        for node, unseen in _call_on_nodes(nodes, _unseen_marks, store, list(nodes)).items():
            if unseen:
                raise InputError(
                    f"storage = {sweep.file.storage!r} is not shared: node {nodes[node]} does not see the file that "
                    f"node {nodes[unseen[0]]} writes there: {_SHARED_ADVICE}"
                )


def _require_same_package(nodes: dict[str, str]) -> None:
    """Compare this package on all nodes with that of this process.

    A package that Ray still unpacks has another digest, or cannot be imported yet: the answer counts when two digests
    in a row are equal.

    Args:
        nodes: Addresses of the nodes by their ids.

    Raises:
        InputError: a node has another package.
        InfrastructureError: a node cannot import it.
    """
    deadline = time.monotonic() + _UNPACK_SECONDS
    previous: dict[str, _Package] = {}
    while True:
        try:
            packages = {"": _read_package(""), **_call_on_nodes(nodes, _read_package)}
        except InfrastructureError:
            packages = {}
            if time.monotonic() > deadline:
                raise
        different = [node for node in packages if packages[node].digest != packages[""].digest]
        if packages and not different:
            return
        if packages and (packages == previous or time.monotonic() > deadline):
            raise InputError(
                f"node {nodes[different[0]]} has {packages[different[0]]}, and this machine {packages['']}: give all "
                "nodes the same."
            )
        previous = packages
        time.sleep(_UNPACK_PAUSE)


def _holds_runs(node: dict[str, Any]) -> bool:
    # The head supervises runs of several workers, and writes into the storage for them.
    return bool(node["Resources"].get("CPU")) or "node:__internal_head__" in node["Resources"]


def _spec_and_key_check(sweep: SweepConfig) -> tuple[dict[str, Any], bytes | None]:
    """Return the spec without its encryption key, and a text encrypted with the key, None without a key."""
    key = find_passphrase(sweep.experiment)
    key_check = encrypt(b"reid-tune", key) if key is not None else None
    return sweep.experiment.model_dump(mode="json", exclude={"encryption_key"}), key_check


@contextmanager
def _temporary_store(sweep: SweepConfig) -> Iterator[ObjectStore]:
    """Yield a folder in the storage to which the nodes write; removed after the block."""
    name = f".nodes-{secrets.token_hex(4)}"
    if is_url(sweep.file.storage):
        bucket = S3Store(sweep.file.storage)
        try:
            yield bucket / name
        finally:
            bucket.remove_tree(name)
        return
    storage = sweep.folder.parent
    folder = storage / name
    is_new = not storage.exists()
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise output_error(f"cannot make a folder in storage = {storage}", error) from None
    try:
        yield LocalStore(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if is_new and storage.is_dir() and not any(storage.iterdir()):
            storage.rmdir()


def _call_on_nodes(nodes: dict[str, str], function: Any, *arguments: Any) -> dict[str, Any]:
    """Call a function on each node, and return the results by node; nodes that leave in the meantime are left out.

    Args:
        nodes: Addresses of the nodes by their ids.
        function: Function of the node's id and the arguments.
        arguments: Further arguments.
    """
    import ray
    from ray.exceptions import RayError
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    task = ray.remote(num_cpus=0, max_retries=0, max_calls=1)(function)
    references = {
        node: task.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)).remote(
            node, *arguments
        )
        for node in nodes
    }
    results = {}
    for node, reference in references.items():
        try:
            results[node] = ray.get(reference, timeout=_NODE_SECONDS)
        except RayError as error:
            if node not in {other["NodeID"] for other in ray.nodes() if other["Alive"]}:
                continue  # It has left the cluster; the other nodes can run the sweep.
            last_line = str(error).strip().splitlines()[-1]
            raise InfrastructureError(f"node {nodes[node]} cannot run reid-tune: {last_line}") from None
    return results


def _mark_and_read_files(
    node: str, spec: dict[str, Any], weights: list[str], key_check: bytes | None, store: ObjectStore
) -> _NodeFiles:
    """Write a file with the node's id as its name to the store, and read the files that the sweep needs."""
    try:
        store.write(node, b"")
    except ReidTuneError as error:
        return _NodeFiles({}, f"it cannot write to the storage: {error}")
    except OSError as error:
        return _NodeFiles({}, f"it cannot write to the storage {store} ({error.strerror}): {_SHARED_ADVICE}")
    return _read_files(spec, weights, key_check)


def _read_files(spec: dict[str, Any], weights: list[str], key_check: bytes | None) -> _NodeFiles:
    try:
        if key_check:
            decrypt(key_check, find_passphrase(), "the sweep")
        return _NodeFiles(training_file_digests(Experiment.model_validate(spec), weights))
    except (ReidTuneError, ValueError) as error:
        return _NodeFiles({}, f"{error} Every node needs the same files at the same paths.")


def _unseen_marks(node: str, store: ObjectStore, nodes: list[str]) -> list[str]:
    # By name: NFS may show an old list of a folder's files for some time.
    return [other for other in nodes if store.read(other) is None]


def _read_package(node: str) -> _Package:
    root, digest = Path(reid_tune.__file__).parent, blake2b(digest_size=16)
    for path in sorted(root.rglob("*.py")):
        digest.update(str(path.relative_to(root)).encode() + b"\0" + path.read_bytes())
    return _Package(reid_tune.__version__, str(root), digest.hexdigest())


def _require_same_files(address: str, node_files: _NodeFiles, files: _NodeFiles) -> None:
    different = [name for name, digest in node_files.digests.items() if files.digests[name] != digest]
    if different:
        raise InputError(
            f"node {address}: its {different[0]} files differ from those of this machine: give all nodes the same."
        )
    if node_files.error:
        raise InputError(f"node {address}: {node_files.error}")
