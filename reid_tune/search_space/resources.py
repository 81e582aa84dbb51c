"""The section `resources` of a search-space file."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from reid_tune.config.base import Section
from reid_tune.search_space.alternatives import expecting

__all__ = ["Resources"]


class Resources(Section):
    workers: int = Field(1, ge=1, description="Workers of each trial and each repeat.")
    gpus_per_worker: Annotated[int | float | Literal["auto"], expecting("a number of GPUs or auto")] = Field(
        "auto", description="auto: 1 if there are GPUs, otherwise 0; below 1 several trials share a GPU."
    )
    cpus_per_worker: int = Field(1, ge=1)
    max_concurrent: int | None = Field(None, ge=1)
    refit_workers: int = Field(1, ge=1)
    accelerator_type: str | None = Field(None, description="Only GPUs of this kind, as Ray names them: H100.")
    custom: dict[str, float] = Field(
        {}, description="Custom resources that each worker takes, by the names with which Ray was started."
    )
    timeout_minutes: float = Field(
        120, gt=0, description="Minutes without a report after which a run is started again."
    )

    @model_validator(mode="after")
    def _check(self) -> "Resources":
        reserved = {"CPU", "GPU", "memory"} & self.custom.keys()
        if reserved:
            raise ValueError(f"custom has {min(reserved)}: use cpus_per_worker and gpus_per_worker for that")
        gpus = self.gpus_per_worker
        if gpus == "auto":
            return self
        if gpus < 0 or (gpus > 1 and not float(gpus).is_integer()):
            raise ValueError(f"gpus_per_worker = {gpus:g}: use 0, a fraction such as 0.5, or a whole number")
        if 0 < gpus < 1 and max(self.workers, self.refit_workers) > 1:
            raise ValueError(
                f"gpus_per_worker = {gpus:g}: a fraction of a GPU is for runs with one worker, but "
                f"workers is {self.workers} and refit_workers is {self.refit_workers}"
            )
        return self

    @property
    def custom_resources(self) -> tuple[tuple[str, float], ...]:
        """Resources of a worker in addition to CPU and GPU, by Ray's names."""
        kind = {f"accelerator_type:{self.accelerator_type}": 0.001} if self.accelerator_type else {}
        return tuple((kind | self.custom).items())
