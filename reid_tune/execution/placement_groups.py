"""Placement groups that a dead run left behind."""

__all__ = ["remove_orphaned_groups"]


def remove_orphaned_groups() -> int:
    """Remove the placement groups of this job whose creator is dead, and return how many.

    Ray 2.60 leaves the group of a stopped or failed trainer to a helper that needs the dashboard; without it the
    resources stay taken. Tune's own groups have no creating actor, detached ones may belong to somebody else.
    """
    import ray
    from ray._private.state import state
    from ray._raylet import PlacementGroupID
    from ray.core.generated import gcs_pb2
    from ray.util.placement_group import PlacementGroup, remove_placement_group

    job = bytes.fromhex(ray.get_runtime_context().get_job_id())
    removed = 0
    for raw in state._connect_and_get_accessor().get_placement_group_table():
        group = gcs_pb2.PlacementGroupTableData.FromString(raw)
        creator = group.creator_actor_id
        ours = group.creator_job_id == job and not group.is_detached
        has_creator = bool(creator) and creator != b"\xff" * len(creator)
        if ours and has_creator and group.creator_actor_dead and group.state != group.REMOVED:
            remove_placement_group(PlacementGroup(PlacementGroupID(group.placement_group_id)))
            removed += 1
    return removed
