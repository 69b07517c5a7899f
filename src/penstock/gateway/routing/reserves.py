"""Which of a provider's slots are for one app alone: all workers come to the same answer without asking each other."""

from collections.abc import Mapping

import msgspec


class Layout(msgspec.Struct, frozen=True):
    """Slots by number: those of each app that has a reserve, and those that are for all, which come last."""

    own: dict[str, range]
    common: range


def lay_out(count: int, reserves: Mapping[str, int]) -> Layout:
    """Shares ``count`` slots out. A reserve of so many percent is rounded up; where all together would leave no common
    slot, they are cut down slot by slot in turn, in the order of the apps' ids."""
    wants = {app: -(-count * percent // 100) for app, percent in sorted(reserves.items()) if percent > 0}
    given, left = dict.fromkeys(wants, 0), max(count - 1, 0)
    if sum(wants.values()) <= left:
        given, left = wants, 0
    while left:
        for app in (app for app, want in wants.items() if given[app] < want):
            if left:
                given[app] += 1
                left -= 1
    own: dict[str, range] = {}
    start = 0
    for app, slots in given.items():
        if slots:
            own[app] = range(start, start + slots)
            start += slots
    return Layout(own, range(start, count))
