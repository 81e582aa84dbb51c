"""Names of a sweep's stages, and the modes of resuming one; imports nothing, as the command line's help needs both."""

from typing import Literal, get_args

__all__ = ["STAGES", "ResumeMode", "Stage"]

Stage = Literal["preflight", "search", "confirm", "rerank", "refit", "export", "test", "register"]
STAGES: tuple[Stage, ...] = get_args(Stage)
# `never` refuses a sweep that exists; `auto` starts or continues it.
ResumeMode = Literal["never", "auto"]
