from reid_tune.execution.network_interface import make_torch_config
from reid_tune.training.timeouts import GROUP_TIMEOUT


def test_workers_of_a_trial_wait_as_long_as_those_of_a_run_of_its_own() -> None:
    config = make_torch_config("gloo")
    assert config.backend == "gloo" and config.timeout_s == GROUP_TIMEOUT.total_seconds() == 7200
