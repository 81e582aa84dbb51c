"""Names that MLflow takes, and that an address such as `models:/NAME@ALIAS` can hold."""

import re

from reid_tune.errors import InputError

__all__ = ["check_alias", "check_model_name"]


def check_model_name(model: str) -> None:
    """Refuse what cannot be the name of a model.

    Raises:
        InputError: the name has other characters or is too long.
    """
    if not re.fullmatch(r"\w[\w. -]{0,127}", model):
        raise InputError(
            f"registry.model: {model!r} cannot name a model; use at most 128 letters, digits, '_', '-', '.' and spaces."
        )


def check_alias(alias: str) -> None:
    """Refuse what cannot be an alias.

    Raises:
        InputError: the alias has other characters, is too long, or means a version to MLflow.
    """
    if not re.fullmatch(r"[\w-]{1,128}", alias) or re.fullmatch(r"(?i)latest|v\d+", alias):
        raise InputError(
            f"{alias!r} cannot be an alias; use at most 128 letters, digits, '_' and '-', but not latest, v1, v2 ..."
        )
