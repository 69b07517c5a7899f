"""The data plane's small pages: model lists, health and readiness."""

import time
from collections.abc import Mapping
from typing import Any

from penstock.domain.catalogue import Catalogue, Model
from penstock.gateway.reach import reachable
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
        "aliases": list(model.aliases),
        "stand_in": model.stand_in is not None,
        "served_by": model.stand_in or (model.targets[0].model if model.targets else None),
    }


def model_list(catalogue: Catalogue, only: str | None) -> dict[str, Any]:
    """GET /v1/models: what is served; ``only`` limits it to the one model of a key on a model plan."""
    allowed = catalogue.find(only) if only is not None else None
    models = [model for model in catalogue.served if only is None or model is allowed]
    return {"object": "list", "data": [model_entry(model) for model in models]}


def available_models(catalogue: Catalogue) -> list[dict[str, Any]]:
    """GET /available-models in Heroku's bare-array shape (heroku-wire.md 2.8): what is served."""
    return [
        {"model_id": model.id, "type": list(model.type), "regions": list(model.regions)} for model in catalogue.served
    ]


class Health:
    """Liveness and readiness of one worker. ``endpoints`` are the upstreams that belong to this installation."""

    def __init__(self, keys: KeySnapshot, endpoints: Mapping[str, str]) -> None:
        self._keys = keys
        self._endpoints = endpoints
        self._started_at = time.time()

    def live(self) -> dict[str, Any]:
        """GET /healthz: this worker answers."""
        return {"status": "ok", "uptime_s": int(time.time() - self._started_at)}

    async def ready(self) -> tuple[bool, dict[str, Any]]:
        """GET /readyz: the engine answers; a stale key snapshot is said but still serves."""
        checks: dict[str, str] = {"keys": "ok" if self._keys.fresh else "stale: the database does not answer"}
        ready = True
        for name, base in self._endpoints.items():
            up = await reachable(base)
            checks[name] = "ok" if up else "not ready"
            ready = ready and up
        return ready, {"status": "ready" if ready else "not ready", "checks": checks}
