"""The simulator that is installed, behind the few functions that every version's folder provides.

Importing this module imports robosuite (1-2 s), so only modules that simulate do. Nothing else asks for the version.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from importlib import import_module
from typing import Any, Protocol, cast

from envs.installed import installed_folder
from envs.robosuite_common import ArmAddresses, MujocoEnv, Stepping


class Simulator(Protocol):
    """What a folder's ``simulator`` module provides; the rest of ``envs`` is the same for all of them."""

    def arm_of(self, env: MujocoEnv) -> ArmAddresses | None:
        """The arm of ``env``; None where it has more than one."""

    def why_not_fused(self, env: MujocoEnv) -> str | None:
        """What keeps ``env`` from the fused control step, in words; None where nothing does."""

    def fused_stepping(self, env: MujocoEnv) -> Stepping:
        """The fused control step of ``env`` as it is now built."""

    def drawing(self, env: MujocoEnv, seed: int) -> AbstractContextManager[Callable[[float, float], float]]:
        """A context in which robosuite's resets draw from ``seed``; gives its ``uniform(low, high)``."""

    def controllers(self, env: MujocoEnv) -> list[Any]:
        """robosuite's controllers of the arms, as they are now."""


simulator = cast(Simulator, import_module(f"envs.{installed_folder()}.simulator"))
