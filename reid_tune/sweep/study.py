"""Optuna's part of a search: what to try next."""

from collections.abc import Mapping
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

from reid_tune.sweep.file import Sweep

if TYPE_CHECKING:
    import optuna

__all__ = ["Study", "suggestion_seed"]


class Study:
    """Optuna's study in memory, by our names of runs."""

    def __init__(self, sweep: Sweep) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.study = optuna.create_study(direction="maximize")
        self.space = sweep.space
        self.sampler = sweep.file.search.sampler
        self.startup = max(4, min(10, sweep.file.budget.trials // 4))
        self.numbers: dict[str, int] = {}

    def ask(self, run: str, seed: int) -> dict[str, Any]:
        """New parameters for a run."""
        self.study.sampler = self._new_sampler(seed)
        trial = self.study.ask(self.space.distributions())
        self.numbers[run] = trial.number
        return self.space.decode(trial.params)

    def remember(self, run: str, parameters: Mapping[str, Any]) -> None:
        """A run that was asked for by an earlier process."""
        import optuna

        encoded = self.space.encode(parameters)
        assert encoded is not None
        self.study.add_trial(
            optuna.trial.create_trial(
                state=optuna.trial.TrialState.RUNNING, params=encoded, distributions=self.space.distributions()
            )
        )
        self.numbers[run] = len(self.study.get_trials(deepcopy=False)) - 1

    def tell(
        self,
        run: str,
        state: str,
        value: float | None,
        epochs: Mapping[int, float],
        parameters: Mapping[str, Any] | None = None,
    ) -> None:
        """The end of a run; trial 0 comes with its parameters and joins only if they lie in the space."""
        import optuna

        states = optuna.trial.TrialState
        end = {"finished": states.COMPLETE, "stopped": states.PRUNED}.get(state, states.FAIL)
        if end is states.COMPLETE and value is None:
            end = states.FAIL
        if run in self.numbers:
            trial = optuna.trial.Trial(self.study, self.study.get_trials(deepcopy=False)[self.numbers[run]]._trial_id)
            for epoch, at_epoch in sorted(epochs.items()):
                trial.report(at_epoch, epoch)
            self.study.tell(trial, value if end is states.COMPLETE else None, state=end)
            return
        encoded = self.space.encode(parameters or {}) if parameters else None
        if encoded is not None and end is states.COMPLETE:
            self.study.add_trial(
                optuna.trial.create_trial(
                    params=encoded,
                    distributions=self.space.distributions(),
                    value=value,
                    intermediate_values=dict(epochs),
                )
            )

    def _new_sampler(self, seed: int) -> "optuna.samplers.BaseSampler":
        import optuna

        if self.sampler == "random":
            return optuna.samplers.RandomSampler(seed=seed)
        return optuna.samplers.TPESampler(seed=seed, n_startup_trials=self.startup, constant_liar=True)


def suggestion_seed(seed: int, number: int) -> int:
    """The seed of one suggestion, 32 bits that only the sweep's seed and the trial's number decide."""
    return int.from_bytes(blake2b(f"{seed}:{number}".encode(), digest_size=4).digest(), "big")
