"""Numbers with a range, for settings that are flags: jsonargparse refuses what lies outside, and names the flag."""

from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:  # what a type checker sees: to it a restricted number is a number
    PositiveInt: TypeAlias = int
    NonNegativeInt: TypeAlias = int
    PositiveFloat: TypeAlias = float
    NonNegativeFloat: TypeAlias = float
else:
    from jsonargparse.typing import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

__all__ = ["NonNegativeFloat", "NonNegativeInt", "PositiveFloat", "PositiveInt"]
