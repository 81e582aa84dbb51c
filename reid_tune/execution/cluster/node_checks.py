"""What every node of a cluster must have: the same code, data, weights and key, and one storage."""

import secrets
import shutil
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
from reid_tune.journal.provenance import training_file_digests
from reid_tune.search_space.load import SweepConfig
from reid_tune.storage.object_store import is_url
from reid_tune.storage.s3 import S3Store
from reid_tune.storage.object_store import LocalStore, ObjectStore

__all__ = ["check_nodes"]

_SHARED = "use a folder that all nodes mount, such as NFS, or s3://."
_SECONDS = 600.0  # for a node to read all training images


@dataclass(frozen=True)
class _Seen:
    """What a process sees of the files that a sweep needs: digests by what they are of, and what is wrong."""

    digests: dict[str, str]
    fault: str = ""


def check_nodes(sweep: SweepConfig) -> None:
    """Compare all nodes that can hold runs with this process; nothing to do where this machine is the only one.

    Raises:
        InputError: the storage is not shared, or a node lacks data, weights or key, or has others.
        InfrastructureError: a node does not answer.
    """
    import ray

    here = ray.get_runtime_context().get_node_id()
    nodes = {node["NodeID"]: node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"] and _holds_runs(node)}
    if not nodes.keys() - {here}:
        return
    asked = _asked(sweep)
    if (own := _look(*asked)).fault:
        raise InputError(f"this machine: {own.fault}")
    with _own_place(sweep) as probes:
        answers = _on_each(nodes, _look_and_mark, *asked, probes)
        for node, seen in answers.items():
            _require_alike(nodes[node], seen, own)
        nodes = {node: nodes[node] for node in answers}
        for node, unseen in _on_each(nodes, _unseen, probes, list(nodes)).items():
            if unseen:
                raise InputError(
                    f"storage = {sweep.file.storage!r} is not shared: node {nodes[node]} does not see what node "
                    f"{nodes[unseen[0]]} writes there: {_SHARED}"
                )


def _holds_runs(node: dict[str, Any]) -> bool:
    # The head supervises runs of several workers, and writes into the storage for them.
    return bool(node["Resources"].get("CPU")) or "node:__internal_head__" in node["Resources"]


def _asked(sweep: SweepConfig) -> tuple[dict[str, Any], bytes | None]:
    """The spec, without its key, and a text that its key opens."""
    key = find_passphrase(sweep.experiment)
    lock = encrypt(b"reid-tune", key) if key is not None else None
    return sweep.experiment.model_dump(mode="json", exclude={"encryption_key"}), lock


@contextmanager
def _own_place(sweep: SweepConfig) -> Iterator[ObjectStore]:
    """A place in the storage for the nodes to write to; removed behind the block."""
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
    new = not storage.exists()
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise InputError(f"storage = {storage}: {error.strerror}: give a folder that can be written.") from None
    try:
        yield LocalStore(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if new and storage.is_dir() and not any(storage.iterdir()):
            storage.rmdir()


def _on_each(nodes: dict[str, str], function: Any, *arguments: Any) -> dict[str, Any]:
    """What a function returns on each node that is still in the cluster when it is asked."""
    import ray
    from ray.exceptions import RayError
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    task = ray.remote(num_cpus=0, max_retries=0, max_calls=1)(function)
    asked = {
        node: task.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)).remote(
            node, *arguments
        )
        for node in nodes
    }
    found = {}
    for node, answer in asked.items():
        try:
            found[node] = ray.get(answer, timeout=_SECONDS)
        except RayError as error:
            if node not in {other["NodeID"] for other in ray.nodes() if other["Alive"]}:
                continue  # It has left meanwhile; what remains can run the sweep.
            last = str(error).strip().splitlines()[-1]
            raise InfrastructureError(f"node {nodes[node]} cannot run reid-tune: {last}") from None
    return found


def _look_and_mark(node: str, spec: dict[str, Any], lock: bytes | None, probes: ObjectStore) -> _Seen:
    try:
        probes.write(node, b"")
    except ReidTuneError as error:
        return _Seen({}, f"it cannot write into the storage: {error}")
    except OSError as error:
        return _Seen({}, f"it cannot write into the storage {probes} ({error.strerror}): {_SHARED}")
    return _look(spec, lock)


def _look(spec: dict[str, Any], lock: bytes | None) -> _Seen:
    code = {"reid-tune": _code()}
    try:
        if lock:
            decrypt(lock, find_passphrase(), "the sweep")
        return _Seen(code | training_file_digests(Experiment.model_validate(spec)))
    except (ReidTuneError, ValueError) as error:  # Another version may know other specs.
        return _Seen(code, f"{error} Every node needs the same files at the same place.")


def _unseen(node: str, probes: ObjectStore, others: list[str]) -> list[str]:
    # By name: NFS may show an old list of a folder's files for some time.
    return [other for other in others if probes.read(other) is None]


def _code() -> str:
    """A digest of this package's source."""
    root, digest = Path(reid_tune.__file__).parent, blake2b(digest_size=16)
    for path in sorted(root.rglob("*.py")):
        digest.update(str(path.relative_to(root)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def _require_alike(address: str, seen: _Seen, own: _Seen) -> None:
    unlike = [name for name, digest in seen.digests.items() if own.digests[name] != digest]
    if unlike:
        raise InputError(f"node {address} has another {unlike[0]} than this machine: give all nodes the same.")
    if seen.fault:
        raise InputError(f"node {address}: {seen.fault}")
