"""The data plane's small pages: model lists, health and readiness."""

import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from penstock.domain.catalogue import Catalogue, Model
from penstock.domain.errors import PenstockError
from penstock.domain.platform import STANDARD_PLAN, Principal
from penstock.gateway.admit import Recent, allowed_model, may_use
from penstock.gateway.reach import reachable
from penstock.gateway.routing.board import Board
from penstock.gateway.snapshot import KeySnapshot


def model_entry(model: Model) -> dict[str, Any]:
    """One entry of GET /v1/models: the dialect's fields, then what a client needs to choose."""
    return {
        "id": model.id,
        "object": "model",
        "created": model.created,
        "owned_by": model.owner,
        "context_window": model.context_window,
        "max_output_tokens": model.max_output,
        "capabilities": list(model.capabilities),
        "input": list(model.input),
        "price": model.rate,
        "aliases": list(model.aliases),
        "stand_in": model.stand_in is not None,
        "served_by": model.stand_in or (model.targets[0].model if model.targets else None),
    }


def model_list(catalogue: Catalogue, principal: Principal) -> dict[str, Any]:
    """GET /v1/models: what is served and the key may use."""
    models = [model for model in catalogue.served if may_use(catalogue, principal, model)]
    return {"object": "list", "data": [model_entry(model) for model in models]}


class Health:
    """Liveness and readiness of one worker. ``endpoints`` are the upstreams that belong to this installation."""

    def __init__(self, keys: KeySnapshot, endpoints: Mapping[str, str], board: Board) -> None:
        self._keys = keys
        self._board = board
        self._endpoints = endpoints
        self._started_at = time.time()

    def live(self) -> dict[str, Any]:
        """GET /healthz: this worker answers."""
        return {"status": "ok", "uptime_s": int(time.time() - self._started_at)}

    async def serves(self, model: Model) -> bool:
        """Whether a target of the model can be called: an endpoint of ours answers, of others nothing is known."""
        for target in model.targets:
            base = self._endpoints.get(target.provider)
            if base is None or await reachable(base):
                return True
        return False

    async def ready(self) -> tuple[bool, dict[str, Any]]:
        """GET /readyz: the engine answers; a stale key snapshot and targets that rest are said but still serve."""
        checks: dict[str, str] = {"keys": "ok" if self._keys.fresh else "stale: the database does not answer"}
        ready = True
        for name, base in self._endpoints.items():
            up = await reachable(base)
            checks[name] = "ok" if up else "not ready"
            ready = ready and up
        status = "ready" if ready else "not ready"
        return ready, {"status": status, "checks": checks, "targets": self._board.states()}


async def addon_status(
    addon_id: str, principal: Principal, catalogue: Catalogue, *, health: Health, recent: Recent
) -> dict[str, str]:
    """GET /models/ADDON, what ``ai:models:info`` prints: all text (heroku-wire.md 4.5). On the standard plan it is
    that of the default model. Raises PenstockError addon_not_found for an add-on that is not the key's own."""
    if addon_id != principal.addon_id:
        message = "This key belongs to no such add-on. penstock addons -a APP lists the app's."
        raise PenstockError("addon_not_found", message)
    try:
        model = allowed_model(catalogue, principal, STANDARD_PLAN)
    except PenstockError:
        model = None  # it has left the catalogue
    return {
        "model_id": principal.model_id or STANDARD_PLAN,
        "ready": "Yes" if model is not None and await health.serves(model) else "No",
        "created": datetime.fromtimestamp(principal.provisioned_at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "avg_performance": "no requests yet" if model is None else recent.speed(model.id),
    }
