"""What one of the further measures of a run gives (bench.measures lists them)."""

from typing import Any, NamedTuple

from bench.rounds import Measurement


class Outcome(NamedTuple):
    """``figures`` go into the result as they are; a ratio that is None has its reason in ``null_because``.

    ``readings`` are measurements with ``foreign`` and ``steal``, for the verdict on how quiet the machine was.
    """

    figures: dict[str, Any]
    ratios: dict[str, float | None]
    readings: list[Measurement]
    null_because: dict[str, str] = {}


def quotient(one: float | None, other: float | None) -> float | None:
    """One over the other, to four digits; None where either is missing."""
    return None if one is None or not other else round(one / other, 4)
