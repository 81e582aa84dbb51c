"""Report on the pretrained weights that were loaded from a file."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from reid_tune.files import display_name

__all__ = ["LoadedWeights", "backbone_names", "shorten"]

_BACKBONE = "backbone."
_MAX_NAMES = 4  # names of tensors in a message
_CLASSIFIER = re.compile(r"(^|\.)(fc|last_linear|logits|(cls_)?heads?(_dist)?|classifiers?)(_\w+)?\.")


@dataclass(frozen=True)
class LoadedWeights:
    """Weights that were loaded from a file; `str` is the report for the user.

    Attributes:
        path: Path of the file.
        sha256: Digest of the file, in hexadecimal.
        location: Wrapper and prefix of the backbone in the file; empty for its top level and for reid-tune's files.
        backbone: Number of tensors of the network's backbone.
        loaded: Names of the network's tensors that were loaded from the file, the resized ones included.
        resized: Names of the loaded tensors that were fitted to another input or window size.
        unused: Names of the file's tensors that were not loaded, in the network's naming.
        untrained: Names of the network's tensors that were to be loaded, but are absent from the file.
        reshaped: Names of those that the file has in another shape, with both shapes.
        remarks: Sentences about other tensors in the file that fit as well, and about the place of the neck.
        images: Fingerprints of the images that the weights were trained on, see `Checkpoint`; None if unknown.
    """

    path: Path
    sha256: str
    location: str
    backbone: int
    loaded: tuple[str, ...]
    resized: tuple[str, ...]
    unused: tuple[str, ...]
    untrained: tuple[str, ...]
    reshaped: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
    images: Tensor | None = None

    def __str__(self) -> str:
        lines = [f"pretrained weights: {self.path} (sha256 {self.sha256})", f"  {self._summary()}"]
        lines += [f"  {remark}" for remark in self.remarks]
        if self.resized:
            lines.append(f"  resized: {shorten(self.resized)}")
        if self.unused:
            lines.append(f"  not used: {shorten(self.unused)}")
        for problem, names in (("of another shape", self.reshaped), ("absent", self.untrained)):
            if names:
                is_in_backbone = bool(backbone_names(names))
                warning = "warning: " if is_in_backbone else ""
                advice = "; to load them too, give a complete file of this backbone" if is_in_backbone else ""
                lines.append(f"  {warning}{problem}, so untrained: {shorten(names)}{advice}")
        return "\n".join(lines)

    def _summary(self) -> str:
        in_backbone = len(backbone_names(self.loaded))
        others = f" and {len(self.loaded) - in_backbone} others" if len(self.loaded) > in_backbone else ""
        source = f" from {self.location}" if self.location else ""
        text = f"loaded {in_backbone} of the backbone's {self.backbone} tensors{others}{source}"
        if not self.unused:
            return text
        of_classifier = sum(bool(_CLASSIFIER.search(name)) for name in self.unused)
        classifier = f", {of_classifier} of them of a classifier" if of_classifier else ""
        return f"{text}; {len(self.unused)} of the file are left{classifier}"


def backbone_names(names: Iterable[str]) -> list[str]:
    """Return the names of the backbone's tensors among names in the network's naming."""
    return [name for name in names if name.startswith(_BACKBONE)]


def shorten(names: Sequence[str]) -> str:
    """Return the first names, and the number of the others."""
    hidden = len(names) - _MAX_NAMES
    return display_name(", ".join(names[:_MAX_NAMES])) + (f" and {hidden} more" if hidden > 0 else "")
