"""Search for the tensors after a backbone in a weight file: projection, neck and classifier."""

from collections.abc import Collection, Iterator, Mapping, Sequence

from torch import Tensor

from reid_tune.checkpoints.file_tensors import FileTensor

__all__ = ["find_heads"]

# Names of TAO, SOLIDER-REID, TransReID, BoT and reid-tune.
_PARTS = {
    "bottleneck": "neck",
    "fcneck": "projection",
    "classifier": "classifier",
    "neck": "neck",
    "pooling": "pooling",
    "projection": "projection",
}
_NECK_STATISTIC = "running_mean"

_Named = dict[tuple[str, ...], str]


def find_heads(
    entries: Sequence[FileTensor], prefix: tuple[str, ...], known: Collection[str], neck: int | None
) -> tuple[dict[str, Tensor], set[str], str | None]:
    """Return the tensors after a backbone by reid-tune's names, and their full names in the file.

    They are searched among the names next to the backbone's, then one level above them, and so on. A batch norm there
    that is the only one of the neck's dimension is the neck if it is a direct neighbour of the backbone (`feat_bn`) or
    is called a neck (fast-reid: `heads.bottleneck.0`), and no linear layer comes directly before it, as in the
    projection heads of self-supervised training.

    Args:
        entries: All tensors of the file.
        prefix: Parts of the backbone's prefix.
        known: Names of the backbone's tensors below the prefix.
        neck: Dimension of the network's neck; None without one.

    Returns:
        The tensors by name, the full names, and the place of a neck that was recognised by its dimension.
    """
    heads: dict[str, Tensor] = {}
    used: set[str] = set()
    neck_place = None
    for level, scope in enumerate(_scopes(entries, prefix, known)):
        names = _named_heads(scope)
        if neck and f"neck.{_NECK_STATISTIC}" not in {*heads, *names.values()}:
            norm = _lone_norm(scope, neck, max_parts=2 if level == 0 else 8)
            if norm:
                names |= norm
                neck_place = scope[next(iter(norm))].full_name.rpartition(".")[0]
        for path, name in names.items():
            if name not in heads:
                tensor = scope[path].tensor
                # TAO's ResNet projects its last map by a convolution of 1 x 1.
                heads[name] = tensor.flatten(1) if path[0] == "feature" and tensor.ndim == 4 else tensor
                used.add(scope[path].full_name)
    return heads, used, neck_place


def _scopes(
    entries: Sequence[FileTensor], prefix: tuple[str, ...], known: Collection[str]
) -> Iterator[Mapping[tuple[str, ...], FileTensor]]:
    """Yield the tensors that are not the backbone's by their paths: below its prefix, one level above it, and so on.

    A tensor whose path is a prefix itself has no name below it and is left out.
    """
    depth = len(prefix)
    inside = [entry for entry in entries if entry.is_below(prefix) and ".".join(entry.path[depth:]) not in known]
    yield {entry.path[depth:]: entry for entry in inside if len(entry.path) > depth}
    others = [entry for entry in entries if not entry.is_below(prefix)]
    for length in reversed(range(depth)):
        below = [entry for entry in others if entry.is_below(prefix[:length]) and len(entry.path) > length]
        yield {entry.path[length:]: entry for entry in below}


def _named_heads(scope: Mapping[tuple[str, ...], FileTensor]) -> _Named:
    parts = {**_PARTS, "feature": "projection"}
    return {path: ".".join((parts[path[0]], *path[1:])) for path in scope if path[0] in parts and len(path) > 1}


def _lone_norm(scope: Mapping[tuple[str, ...], FileTensor], dimension: int, max_parts: int) -> _Named:
    norms = [
        path[:-1]
        for path, entry in scope.items()
        if path[-1] == _NECK_STATISTIC and len(path) <= max_parts and tuple(entry.tensor.shape) == (dimension,)
    ]
    necks = [norm for norm in norms if _may_be_neck(norm) and not _follows_linear_layer(scope, norm, dimension)]
    return {path: f"neck.{path[-1]}" for path in scope if path[:-1] == necks[0]} if len(necks) == 1 else {}


def _may_be_neck(norm: tuple[str, ...]) -> bool:
    """Whether a norm is next to the backbone, and not a part of another module, or is called a neck."""
    return len(norm) == 1 or any("neck" in part.lower() for part in norm)


def _follows_linear_layer(scope: Mapping[tuple[str, ...], FileTensor], norm: tuple[str, ...], dimension: int) -> bool:
    """Whether the tensors before a norm's in the same module are those of a linear layer with its dimension."""
    siblings = [path for path in scope if path[: len(norm) - 1] == norm[:-1] and len(path) == len(norm) + 1]
    before = [path[:-1] for path in siblings[: siblings.index((*norm, _NECK_STATISTIC))] if path[:-1] != norm]
    shapes = [tuple(scope[path].tensor.shape) for path in siblings if before and path[:-1] == before[-1]]
    return any(len(shape) == 2 and shape[0] == dimension for shape in shapes)
