"""Checks ``[[limit]]`` and ``[[budget]]`` rows before anything is served by them."""

from penstock.domain.catalogue import Catalogue
from penstock.gateway.limits.defaults import amount_nanos
from penstock.providers.catalogue import CatalogueError
from penstock.settings.tree import BudgetDefault, LimitDefault, Settings


def check_defaults(settings: Settings, catalogue: Catalogue) -> None:
    """Raises CatalogueError, which says where: a model that is not there, an amount that is none, the same row twice,
    and one that bounds nothing."""
    seen: set[tuple[object, ...]] = set()
    for at, row in enumerate(settings.limit):
        place = ("limit", row.scope, row.model)
        bounds = (row.requests_per_minute, row.tokens_per_minute, row.concurrent_requests, row.max_tokens)
        _check(row, place, seen, catalogue, at)
        if bounds == (None,) * len(bounds):
            message = "[[limit]] bounds nothing: set requests_per_minute, tokens_per_minute, concurrent_requests or "
            raise CatalogueError(f"{message}max_tokens", "limit", at)
    for at, one in enumerate(settings.budget):
        _check(one, ("budget", one.scope, one.model, one.period, one.currency), seen, catalogue, at)
        try:
            amount_nanos(one)
        except ValueError as error:
            raise CatalogueError(f"[[budget]]: {error}", "budget", at, "amount") from error


def _check(
    row: LimitDefault | BudgetDefault,
    place: tuple[object, ...],
    seen: set[tuple[object, ...]],
    catalogue: Catalogue,
    at: int,
) -> None:
    kind = str(place[0])
    if row.model is not None and catalogue.find(row.model) is None:
        message = f"[[{kind}]]: the model '{row.model}' does not exist; penstock models lists them"
        raise CatalogueError(message, kind, at, "model")
    if place in seen:
        said = " and ".join(str(part) for part in place[1:] if part is not None)
        raise CatalogueError(f"[[{kind}]]: there is another row for {said}; keep one of them", kind, at, "scope")
    seen.add(place)
