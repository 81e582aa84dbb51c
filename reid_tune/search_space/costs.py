"""Costs of a configuration's network, which follow from the spec alone, for constraints such as `gflops <= 5`."""

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from reid_tune.config.model import Model
from reid_tune.errors import InputError
from reid_tune.search_space.schema import COST_METRICS

__all__ = ["MAX_NETWORKS", "ValuesWithCosts", "network_text"]

# Networks whose costs are computed before a sweep begins; each takes 0.1 to 0.3 s.
MAX_NETWORKS = 100


class ValuesWithCosts(dict[str, Any]):
    """Values of the spec by key; those of `COST_METRICS` are computed when they are read."""

    def __missing__(self, key: str) -> Any:
        if key not in COST_METRICS:
            raise KeyError(key)
        return _costs(network_text(self))[key]


def network_text(values: Mapping[str, Any]) -> str:
    """Return text that two configurations share if their networks have the same cost.

    Args:
        values: Values of the spec by key.
    """
    from reid_tune.modeling.cost import COST_FIELDS

    return json.dumps({name: values[f"model.{name}"] for name in COST_FIELDS})


@lru_cache(maxsize=16_384)  # above the configurations of the largest grid
def _costs(text: str) -> dict[str, float]:
    """Return the costs of a network, see `network_cost`; results are kept, as a network takes 0.1 to 0.3 s.

    Raises:
        ValueError: the network cannot be built.
    """
    from reid_tune.modeling.cost import network_cost

    try:
        return network_cost(Model.model_validate(json.loads(text)))
    except InputError as error:
        raise ValueError(str(error).rstrip(".")) from None
