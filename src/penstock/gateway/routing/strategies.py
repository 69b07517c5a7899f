"""The order in which a model's targets are tried: the first is the choice, the others stand by."""

import math
import random
from collections.abc import Callable, Mapping, Sequence
from hashlib import blake2b
from typing import NamedTuple

import msgspec

from penstock.domain.catalogue import Strategy, Target
from penstock.domain.chat import ChatRequest
from penstock.gateway.routing.health import Health

_BOUND = 1.25  # of the mean load; "Consistent Hashing with Bounded Loads", arXiv:1608.01350
_PREFIX_BYTES = 16_384


class Ask(NamedTuple):
    """What a choice may look at: the request, whose it is, each target's health (in the same order), and dice."""

    chat: ChatRequest
    app_id: str
    healths: Sequence[Health]
    dice: random.Random


def ordered(targets: Sequence[Target], ask: Ask) -> Sequence[Target]:
    """As the operator wrote them."""
    return targets


def weighted(targets: Sequence[Target], ask: Ask) -> Sequence[Target]:
    """Drawn one after the other by weight; weight 0 only stands by. Keys as of Efraimidis and Spirakis (2006)."""
    keys = [math.inf if not target.weight else -math.log(1.0 - ask.dice.random()) / target.weight for target in targets]
    return _sorted(targets, keys)


def least_outstanding(targets: Sequence[Target], ask: Ask) -> Sequence[Target]:
    """The one with the fewest calls of this worker under way; by lot among equals."""
    return _sorted(targets, [health.outstanding + ask.dice.random() / 2 for health in ask.healths])


def lowest_ttft(targets: Sequence[Target], ask: Ask) -> Sequence[Target]:
    """The one with the lowest recent time to the first event. One of which nothing is known is tried, by one request at
    a time."""
    streamed = bool(ask.chat.stream)
    keys = []
    for health in ask.healths:
        mean = health.speed(streamed=streamed).mean(health.clock())
        unknown = -1.0 if not health.outstanding else math.inf
        keys.append(unknown if mean is None else mean)
    chosen = ask.healths[min(range(len(keys)), key=keys.__getitem__)]
    chosen.speed(streamed=streamed).chosen(chosen.clock())
    return _sorted(targets, keys)


def prefix(targets: Sequence[Target], ask: Ask) -> Sequence[Target]:
    """The same app's same leading messages go to the same target, whose cache has them, by rendezvous hashing; one that
    has more than 1.25 times the mean load is passed over."""
    key = _prefix_key(ask)
    keys = [
        -int.from_bytes(blake2b(target.name.encode(), key=key, digest_size=8).digest(), "big") for target in targets
    ]
    room = math.ceil(_BOUND * (sum(health.outstanding for health in ask.healths) + 1) / len(targets))
    full = [health.outstanding >= room for health in ask.healths]
    return _sorted(targets, list(zip(full, keys, strict=True)))


_STRATEGIES: Mapping[Strategy, Callable[[Sequence[Target], Ask], Sequence[Target]]] = {
    "ordered": ordered,
    "weighted": weighted,
    "least_outstanding": least_outstanding,
    "lowest_ttft": lowest_ttft,
    "prefix": prefix,
}


def in_order(strategy: Strategy, targets: Sequence[Target], ask: Ask) -> Sequence[Target]:
    """The targets in the order in which the strategy tries them."""
    return _STRATEGIES[strategy](targets, ask)


def _prefix_key(ask: Ask) -> bytes:
    """The app, the tools, and the messages up to the first that is not an instruction: a conversation keeps these."""
    digest = blake2b(ask.app_id.encode(), digest_size=32)
    if ask.chat.tools is not None:
        digest.update(msgspec.json.encode(ask.chat.tools))
    for message in ask.chat.messages:
        content = message.content
        data = content[:_PREFIX_BYTES].encode("utf-8", "replace") if isinstance(content, str) else _encoded(content)
        digest.update(b"\0%b\0%b" % (message.role.encode(), data))
        if message.role not in ("system", "developer"):
            break
    return digest.digest()


def _encoded(content: object) -> bytes:
    return msgspec.json.encode(content)


def _sorted(targets: Sequence[Target], keys: Sequence[object]) -> Sequence[Target]:
    """By key; those with equal keys stay as written."""
    order = sorted(range(len(targets)), key=keys.__getitem__)  # type: ignore[arg-type]
    return [targets[at] for at in order]
