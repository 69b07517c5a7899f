"""Start-time fair queueing between apps: each is served in proportion to its weight, however many requests it queues.

Every app that waits has a tag, in units of virtual time; the lowest is served next, and being served moves an app's tag
on by 1 / weight. The virtual clock is the tag that was served last: who comes anew begins there, so nobody gathers a
claim by staying away, and nobody pays for what was served while others were not waiting. Over any time in which two
apps both wait, what they are served differs from their weights by one request of each at most.
"""

from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

T = TypeVar("T", bound=Hashable)

# Apps that do not wait any more and whose tag lies ahead of the clock are remembered; those behind it are forgotten
# when they are this many.
_REMEMBERED = 256


class _Waiting(Generic[T]):
    """What one app has queued, by the order of arrival, and the tag of its first."""

    __slots__ = ("items", "tag", "weight")

    def __init__(self, tag: float) -> None:
        self.items: OrderedDict[T, int] = OrderedDict()
        self.tag = tag
        self.weight = 1


class FairQueue(Generic[T]):
    """Items that wait, each for an app; within an app first in, first out."""

    def __init__(self) -> None:
        self._apps: dict[str, _Waiting[T]] = {}
        self._gone: dict[str, float] = {}  # the tags of apps that wait no more
        self._clock = 0.0
        self._length = 0
        self._arrivals = 0

    def __len__(self) -> int:
        return self._length

    def __contains__(self, app: str) -> bool:
        return app in self._apps

    def add(self, app: str, weight: int, item: T) -> None:
        """At the end of what the app has queued; ``weight`` is the app's from now on."""
        waiting = self._apps.get(app)
        if waiting is None:
            waiting = self._apps[app] = _Waiting(max(self._clock, self._gone.pop(app, 0.0)))
        waiting.weight = weight
        self._arrivals += 1
        waiting.items[item] = self._arrivals
        self._length += 1

    def next_app(self) -> str:
        """Whose turn it is; of equals, whose first item came first. Only when something waits."""
        return min(self._apps, key=self._turn)

    def first(self, app: str) -> T:
        """The first item of an app that waits."""
        return next(iter(self._apps[app].items))

    def serve(self, app: str, *, counted: bool = True) -> T:
        """Takes out the first item of an app; ``counted`` when it is at the cost of the others."""
        waiting = self._apps[app]
        item = self.first(app)
        if counted:
            self._clock = max(self._clock, waiting.tag)
            waiting.tag += 1 / waiting.weight
        self.drop(app, item)
        return item

    def drop(self, app: str, item: T) -> None:
        """Takes out an item that gave up, unless it is out already. It cost nothing."""
        waiting = self._apps.get(app)
        if waiting is None or waiting.items.pop(item, None) is None:
            return
        self._length -= 1
        if not waiting.items:
            del self._apps[app]
            self._leave(app, waiting.tag)

    def yields_to(self, app: str, weight: int) -> T | None:
        """Takes out what must go so that one of ``app`` may come into a full queue: the newest item of the app that by
        its weight would hold most of it; None when that is ``app`` itself."""
        own = self._apps.get(app)
        share = ((len(own.items) if own else 0) + 1) / weight
        heaviest = max(self._apps, key=self._share, default=None)
        if heaviest is None or self._share(heaviest) <= share:
            return None
        item = next(reversed(self._apps[heaviest].items))
        self.drop(heaviest, item)
        return item

    def _turn(self, app: str) -> tuple[float, int]:
        waiting = self._apps[app]
        return waiting.tag, next(iter(waiting.items.values()))

    def _share(self, app: str) -> float:
        waiting = self._apps[app]
        return len(waiting.items) / waiting.weight

    def _leave(self, app: str, tag: float) -> None:
        if not self._apps:  # nobody waits: whoever comes next begins anew
            self._gone.clear()
            self._clock = 0.0
            return
        self._gone[app] = tag
        if len(self._gone) > _REMEMBERED:
            self._gone = {name: at for name, at in self._gone.items() if at > self._clock}
