"""Names of the six arrays of a feature file, as other programs write them too."""

import re
from collections.abc import Mapping, Sequence

from reid_tune.errors import InputError
from reid_tune.files import display_name

__all__ = ["match_names"]

# After the side: `gf`, `gallery_feat`, `q_pids`, `query_label`, `g_camids`, `gallery_cam` and the like.
_KINDS = {
    "features": r"f|feats?|features?|embs?|embeddings?",
    "ids": r"ids?|pids?|person_?ids?|labels?|identit(y|ies)",
    "cameras": r"cams?|cam_?ids?|cameras?|camera_?ids?",
}
_PATTERNS = {
    f"{side}_{kind}": re.compile(f"({side}|{side[0]})_?({words})", re.IGNORECASE)
    for side in ("query", "gallery")
    for kind, words in _KINDS.items()
}

_SHOWN, _LENGTH = 20, 40  # names in a message, and characters of each


def match_names(names: Sequence[str]) -> Mapping[str, str]:
    """Return the name in a file for each of the six arrays of `FeatureSet`.

    Args:
        names: Names of all arrays of the file.

    Raises:
        InputError: an array is missing, or several names fit it; the message begins with a verb, and lists the names.
    """
    matches = {
        array: [array] if array in names else [name for name in names if pattern.fullmatch(name)]
        for array, pattern in _PATTERNS.items()
    }
    for array, fitting in matches.items():
        if len(fitting) > 1:
            raise InputError(f"has several arrays that may be {array}: {_listing(fitting)}; keep one of them.")
    missing = [array for array, fitting in matches.items() if not fitting]
    if len(missing) == len(matches):
        raise InputError(f"has none of the arrays {', '.join(missing)}, but {_listing(names)}; rename or write them.")
    if missing:
        raise InputError(f"lacks {', '.join(missing)}; it must hold {', '.join(_PATTERNS)}, and has {_listing(names)}.")
    return {array: fitting[0] for array, fitting in matches.items()}


def _listing(names: Sequence[str]) -> str:
    shown = [display_name(name)[:_LENGTH] for name in sorted(names)[:_SHOWN]]
    return ", ".join(shown) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "") or "no array"
