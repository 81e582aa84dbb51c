"""Checks that MLflow accepts a name, and that an address such as `models:/NAME@ALIAS` can contain it."""

import re

from reid_tune.errors import InputError

__all__ = ["check_alias", "check_model_name"]


def check_model_name(model: str) -> None:
    """Check the name of a model.

    Raises:
        InputError: the name has characters that are not allowed, or is too long.
    """
    if not re.fullmatch(r"\w[\w. -]{0,127}", model):
        raise InputError(
            f"registry.model: {model!r} cannot name a model; use at most 128 letters, digits, '_', '-', '.' and spaces."
        )


def check_alias(alias: str) -> None:
    """Check an alias.

    Raises:
        InputError: the alias has characters that are not allowed, is too long, or is the name of a version in MLflow.
    """
    if not re.fullmatch(r"[\w-]{1,128}", alias) or re.fullmatch(r"(?i)latest|v\d+", alias):
        raise InputError(
            f"{alias!r} cannot be an alias; use at most 128 letters, digits, '_' and '-', but not latest, v1, v2 ..."
        )
