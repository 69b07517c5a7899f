"""A line of the log for what limits and budgets refuse: who was refused, what, and why. No prompt and no key is in it.

A client that is refused all the time must not fill the log: of each key and kind the first few are told, then how many
more there were.
"""

import asyncio
import logging

from penstock.domain.errors import PenstockError
from penstock.domain.platform import Principal

_log = logging.getLogger("penstock.refused")
EVERY_S = 10.0
LINES = 3
_MOST_PLACES = 200
# What an operator has to do something about; the others are limits that do what they are for.
_TROUBLE = {"budget_exceeded", "limits_unavailable"}
_Place = tuple[str, str, str]
_OTHERS: _Place = ("others", "", "")


class RefusalLog:
    """The refusals of one worker. ``every_s`` is how often it begins anew."""

    def __init__(self, *, every_s: float = EVERY_S) -> None:
        self._every_s = every_s
        self._counts: dict[_Place, int] = {}

    def note(self, principal: Principal, model: str, error: PenstockError, request_id: str) -> None:
        """A request was refused."""
        place = (principal.app_name, principal.key_prefix, error.code)
        if place not in self._counts and len(self._counts) >= _MOST_PLACES:
            place = _OTHERS
        if not self._counts:
            asyncio.get_running_loop().call_later(self._every_s, self.flush)
        count = self._counts[place] = self._counts.get(place, 0) + 1
        if count <= LINES and place is not _OTHERS:
            level = logging.WARNING if error.code in _TROUBLE else logging.INFO
            said = "refused %s of app %s, key %s, model %s: %s: %s"
            _log.log(level, said, request_id, *place[:2], model, error.code, error.message)

    def flush(self) -> None:
        """Tells how many were left out, and begins anew."""
        counts, self._counts = self._counts, {}
        for place, count in counts.items():
            if place is _OTHERS:
                _log.info("refused %d requests of other keys within %.0f s", count, self._every_s)
            elif count > LINES:
                said = "refused %d more of app %s, key %s: %s, within %.0f s"
                _log.info(said, count - LINES, *place, self._every_s)
