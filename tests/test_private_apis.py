"""Private interfaces of Ray and Optuna that are used: after an upgrade, the failing case names the one that moved."""

import importlib
import inspect
from functools import reduce
from typing import Any

import pytest

from reid_tune.execution.cluster import session

RAY = "reid_tune/execution/ray_private.py"
TPE = "reid_tune/search/tpe.py"
CONTROLLER = "ray.tune.execution.tune_controller:TuneController.request_stop_trial"
NAMES = {
    # remove_orphaned_groups
    "ray._private.state:state._connect_and_get_accessor": RAY,
    "ray._raylet:GlobalStateAccessor.get_placement_group_table": RAY,
    "ray._raylet:PlacementGroupID": RAY,
    "ray.core.generated.gcs_pb2:PlacementGroupTableData.REMOVED": RAY,
    # CLUSTER_QUERY
    "ray._common.usage.usage_lib:get_cluster_metadata": RAY,
    "ray._private.services:canonicalize_bootstrap_address": RAY,
    "ray._raylet:GcsClient": RAY,
    # read_autoscaling_config, trainer_without_group_cleaner, torch_config_with_hook, request_stop
    "ray.autoscaler._private.kuberay.autoscaling_config:AutoscalingConfigProducer.__call__": RAY,
    "ray.train.torch:TorchTrainer._create_default_callbacks": RAY,
    "ray.train.torch.config:_TorchBackend.on_start": RAY,
    "ray.train.torch.config:TorchConfig.backend_cls": RAY,
    "ray.train.v2._internal.execution.worker_group:WorkerGroup.execute_single_async": RAY,
    # job_client, hide_messages, keep_secrets_out_of_trials, loopback_only
    "ray._private.worker:print_to_stdstream": RAY,
    "ray.tune.execution.class_cache:ENV_VARS_TO_PROPAGATE.difference_update": RAY,
    "ray._private.ray_constants:ENABLE_RAY_CLUSTER": RAY,
    CONTROLLER: RAY,
    # SuggestionTpe and find_trial
    "optuna.samplers._tpe.sampler:_split_trials": TPE,
    "optuna.samplers._tpe.sampler:default_gamma": TPE,
    "optuna.samplers._tpe.sampler:default_gamma_multiobjective": TPE,
    "optuna.samplers:TPESampler._sample": TPE,
    "optuna.samplers:TPESampler._build_parzen_estimator": TPE,
    "optuna.samplers:TPESampler._compute_acquisition_func": TPE,
    "optuna.samplers:TPESampler._compare": TPE,
}
PARAMETERS = {
    "ray.util.scheduling_strategies:NodeAffinitySchedulingStrategy": ({"soft", "_spill_on_unavailable"}, RAY),
    "ray.autoscaler._private.kuberay.autoscaling_config:AutoscalingConfigProducer": (
        {"ray_cluster_name", "ray_cluster_namespace"},
        RAY,
    ),
    "ray.train.torch.config:_TorchBackend.on_start": ({"self", "worker_group", "backend_config"}, RAY),
    "ray.train.torch.config:_set_torch_distributed_env_vars": (set(), RAY),
    "ray.train.torch.config:_setup_torch_process_group": (
        {"backend", "world_rank", "world_size", "init_method", "timeout_s"},
        RAY,
    ),
    "ray.job_submission:JobSubmissionClient._do_request": ({"kwargs"}, RAY),
    CONTROLLER: ({"self", "trial"}, RAY),
    "optuna.samplers._tpe.sampler:_split_trials": ({"study", "trials", "n_below"}, TPE),
    "optuna.samplers:TPESampler._sample": ({"self", "study", "trial", "search_space"}, TPE),
    "optuna.samplers:TPESampler._build_parzen_estimator": ({"study", "search_space", "trials", "handle_below"}, TPE),
    "optuna.samplers:TPESampler._compute_acquisition_func": ({"samples", "mpe_below", "mpe_above"}, TPE),
    "optuna.samplers:TPESampler._compare": ({"samples", "acquisition_func_vals"}, TPE),
}
# Words in the source of a function that has no signature to check.
WORDS = {
    "ray:init": ({'kwargs.pop("_temp_dir"', 'kwargs.pop("_node_ip_address"'}, RAY),
    "ray.train.torch:TorchTrainer._create_default_callbacks": ({"PlacementGroupCleanerCallback"}, RAY),
    "ray.tune.execution.class_cache:_ActorClassCache.get": ({"ENV_VARS_TO_PROPAGATE", "os.environ"}, RAY),
    "ray._private.services:get_node_ip_address": ({"ray_constants.ENABLE_RAY_CLUSTER"}, RAY),
    "ray._common.usage.usage_lib:_generate_cluster_metadata": ({'"ray_version"', '"python_version"'}, RAY),
}


def load(name: str) -> Any:
    module, _, path = name.partition(":")
    return reduce(getattr, path.split("."), importlib.import_module(module))


@pytest.mark.parametrize("name", NAMES)
def test_private_name_exists(name: str) -> None:
    try:
        load(name)
    except (ImportError, AttributeError) as error:
        pytest.fail(f"{name} has moved, see {NAMES[name]}: {error}")


@pytest.mark.parametrize("name", PARAMETERS)
def test_private_function_has_its_parameters(name: str) -> None:
    parameters, user = PARAMETERS[name]
    missing = parameters - inspect.signature(load(name)).parameters.keys()
    assert not missing, f"{name} has lost {missing}, see {user}"


@pytest.mark.parametrize("name", WORDS)
def test_private_source_has_its_words(name: str) -> None:
    words, user = WORDS[name]
    missing = {word for word in words if word not in inspect.getsource(load(name))}
    assert not missing, f"{name} has lost {missing}, see {user}"


def test_placement_groups_have_their_fields() -> None:
    fields = {"creator_actor_id", "creator_job_id", "creator_actor_dead", "is_detached", "placement_group_id", "state"}
    group = load("ray.core.generated.gcs_pb2:PlacementGroupTableData")
    missing = fields - set(group.DESCRIPTOR.fields_by_name)
    assert not missing, f"PlacementGroupTableData has lost {missing}, see {RAY}"


def test_optuna_objects_have_their_attributes() -> None:
    import optuna

    assert hasattr(optuna.samplers.TPESampler()._rng, "rng"), f"TPESampler._rng.rng has moved, see {TPE}"
    trial = optuna.create_study().ask()
    assert trial._trial_id == trial.study.get_trials()[0]._trial_id == 0, f"_trial_id has moved, see {TPE}"


def test_ray_reads_the_environment_variables_that_are_set() -> None:
    constants = ("ray.train.constants", "ray.train.v2._internal.constants", "ray._private.accelerators.accelerator")
    read = {value for name in constants for value in vars(importlib.import_module(name)).values() if type(value) is str}
    unread = (
        (session._WORKER_SETTINGS | session._TUNE_SETTINGS).keys() - read - load("ray.tune.constants:TUNE_ENV_VARS")
    )
    assert not unread, f"Ray does not read {unread} any more, see reid_tune/execution/cluster/session.py"
