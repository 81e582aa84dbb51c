"""The resources of a stage's runs on the cluster in its present state; Ray must be running."""

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

from reid_tune.errors import InputError, error_context
from reid_tune.execution.placement import Placement, compute_placement
from reid_tune.execution.run_source import ResourceRequest
from reid_tune.journal.costs import Cost
from reid_tune.search_space.load import SweepConfig

__all__ = ["StageResources", "find_capacity", "find_placement", "resolve_stage_resources"]


@dataclass(frozen=True)
class StageResources:
    """The resources of each run of a stage, and the number of runs at the same time."""

    per_run: ResourceRequest
    max_concurrent: int

    def cost(self, seconds: Sequence[float]) -> Cost:
        """Return the cost of runs, each started as soon as there is capacity.

        Args:
            seconds: Duration of each run, in the order of their starts.
        """
        ends = [0.0] * self.max_concurrent
        for duration in seconds:
            heapq.heapreplace(ends, ends[0] + duration)
        run_hours = sum(seconds) / 3600
        return Cost(max(ends) / 3600, run_hours * self.per_run.gpus, run_hours * self.per_run.cpus)


def resolve_stage_resources(sweep: SweepConfig, workers: int) -> StageResources:
    """Return the resources of each run of a stage, and how many runs fit at the same time.

    Args:
        sweep: The sweep.
        workers: Number of workers of each run.

    Raises:
        InputError: not a single run fits, now or when the autoscaler has added nodes.
    """
    with error_context(sweep.source):
        placement = compute_placement(sweep.file.resources, workers)
    request = ResourceRequest(workers * placement.cpus, workers * placement.gpus, workers, placement.custom)
    return StageResources(request, placement.max_concurrent)


def find_placement(sweep: SweepConfig, workers: int) -> Placement | None:
    """Return the placement of a run's workers; None where no run fits, as after a loss of nodes, which may return."""
    try:
        return compute_placement(sweep.file.resources, workers)
    except InputError:
        return None


def find_capacity(sweep: SweepConfig, workers: int) -> int:
    """Return the number of runs that fit on the cluster in its present state."""
    placement = find_placement(sweep, workers)
    return placement.max_concurrent if placement else 0
