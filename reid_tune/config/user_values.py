"""The values of a user by dotted key, from a file or from overrides, with the faults of their keys."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from reid_tune.config.experiment import canonical_key, leaves
from reid_tune.config.interpolation import is_missing
from reid_tune.config.keys import LEAVES, SECTIONS, nearest_key
from reid_tune.config.pydantic_messages import Fault, shorten
from reid_tune.config.tao_keys import is_tao_key
from reid_tune.environment import is_secret_name

__all__ = ["EMPTY_IS_A_VALUE", "UserValues", "read_user_values"]

# Fields of which the empty text is a value.
EMPTY_IS_A_VALUE = {"model.neck", "model.pretrain_choice"}
_SUGGESTIONS = 100  # searching for a similar key takes a millisecond


@dataclass
class UserValues:
    """Values by dotted key, with the schema's spelling.

    Attributes:
        values: Values of the schema's keys; None where a key is written, but no value is given.
        tao: Values of the reference's keys that are not in the schema; None as in `values`.
        faults: Keys that are wrong.
        placeholders: Keys with the value `???`.
    """

    values: dict[str, Any] = field(default_factory=dict)
    tao: dict[str, Any] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    placeholders: set[str] = field(default_factory=set)

    @property
    def keys(self) -> set[str]:
        """Keys with a value."""
        return {key for key, value in (self.values | self.tao).items() if value is not None}

    def overridden_by(self, other: "UserValues") -> "UserValues":
        """Return the values with those of the command line in place of the file's.

        GPUs of the command line replace both `num_gpus` and `gpu_ids` of the file.
        """
        tasks = {key.split(".")[0] for key in other.values if key.endswith((".num_gpus", ".gpu_ids"))}
        reset_values = dict.fromkeys(f"{task}.{name}" for task in tasks for name in ("num_gpus", "gpu_ids"))
        return UserValues(
            self.values | reset_values | other.values,
            self.tao | other.tao,
            self.faults + other.faults,
            self.placeholders - set(other.values) | other.placeholders,
        )


def read_user_values(tree: Mapping[str, Any]) -> UserValues:
    """Return the user's values in nested mappings, whose keys may be dotted."""
    user = UserValues()
    for key, value in leaves({str(key): value for key, value in tree.items()}):
        name = canonical_key(key)
        if key in SECTIONS:
            if not is_missing(value) and value != {}:
                message = f"{key} is a section, but its value is {shorten(value)}: write its keys below it."
                user.faults.append(Fault(key, message))
        elif is_tao_key(key):
            _set_value(user, user.tao, key, value)
        elif name not in LEAVES:
            user.faults.append(_unknown_key(key, len(user.faults) < _SUGGESTIONS))
        else:
            if value == "???":
                user.placeholders.add(name)
            _set_value(user, user.values, name, value)
    return user


def _set_value(user: UserValues, values: dict[str, Any], name: str, value: Any) -> None:
    if is_missing(value) and not (value == "" and name in EMPTY_IS_A_VALUE):
        values.setdefault(name, None)
    elif values.get(name, value) not in (value, None):
        shown = "" if is_secret_name(name) else f", as {shorten(values[name])} and {shorten(value)}"
        message = f"{name} is given twice (an alias and a dotted key are second spellings){shown}: keep one."
        user.faults.append(Fault(name, message))
    else:
        values[name] = value


def _unknown_key(key: str, suggests: bool) -> Fault:
    if key[:1] in ("+", "~"):
        return Fault(key, f"{key[:100]}: write key=value, without + or ~.")
    nearest = nearest_key(key) if suggests else None
    return Fault(key, f"unknown key {key[:100]}" + (f"; did you mean {nearest}?" if nearest else "."), nearest)
