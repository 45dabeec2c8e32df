"""The learners by name. A new one is a file beside these, and a row here."""

from typing import Any

from common.errors import UserError
from dsrl.learners.base import LearnerConfig, SteeringSAC
from dsrl.learners.na import NoiseAliasingSAC
from dsrl.learners.prior import PriorSAC
from dsrl.learners.sac import NoiseSAC

LEARNERS: dict[str, type[SteeringSAC]] = {"prior": PriorSAC, "sac": NoiseSAC, "na": NoiseAliasingSAC}
DEFAULT = "prior"

__all__ = ["DEFAULT", "LEARNERS", "LearnerConfig", "SteeringSAC", "learner_named"]


def learner_named(algorithm: Any) -> type[SteeringSAC]:
    """The class of a learner.

    Raises:
        UserError: there is none of that name.
    """
    if not isinstance(algorithm, str) or algorithm not in LEARNERS:
        raise UserError(f"--learner.algorithm is {algorithm!r}: expected one of {', '.join(LEARNERS)}.")
    return LEARNERS[algorithm]
