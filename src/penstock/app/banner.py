"""What ``penstock serve`` prints once it is ready."""

import json

import msgspec

from penstock.domain.catalogue import Catalogue
from penstock.settings.tree import Settings


class Hello(msgspec.Struct, frozen=True):
    """The app that the very first start made, and its key."""

    app: str
    key: str

    def __repr__(self) -> str:
        return f"Hello({self.app})"


def print_banner(
    catalogue: Catalogue, gateway_url: str, control_url: str, *, settings: Settings, hello: Hello | None
) -> None:
    """Addresses, models, stand-ins, the first curl line, and the ready line last."""
    own = [model.id for model in catalogue.models if model.stand_in is None and model.targets]
    stand_ins = [model.id for model in catalogue.models if model.stand_in is not None]
    unserved = sum(1 for model in catalogue.models if not model.targets)
    lines = [
        f"Penstock serves in {settings.serve.mode} mode.",
        f"  gateway        {gateway_url}",
        f"  control plane  {control_url}",
        f"  home           {settings.home}",
        f"  models         {', '.join(own) or 'none'}",
    ]
    if stand_ins:
        lines.append(
            f"  stand-ins      {len(stand_ins)} ids answered by {settings.engine.model}, not by their real models:"
        )
        lines += [f"                 {row}" for row in _rows(stand_ins)]
    if unserved:
        lines.append(f"  not served     {unserved} ids have no provider (penstock models:list shows them)")
    if hello is not None:
        lines += [
            "",
            f"Made the app '{hello.app}' with an attached INFERENCE. Try:",
            "",
            _curl(gateway_url, hello, settings),
        ]
    lines += ["", f"ready gateway={gateway_url} control={control_url}"]
    print("\n".join(lines), flush=True)


def _rows(names: list[str], per_row: int = 5) -> list[str]:
    return [", ".join(names[start : start + per_row]) for start in range(0, len(names), per_row)]


def _curl(gateway_url: str, hello: Hello, settings: Settings) -> str:
    body = {"model": settings.engine.model, "messages": [{"role": "user", "content": "Say hello."}], "max_tokens": 30}
    # The key is shown once, on the terminal of the person who started the server, as config:get would show it.
    return f"curl -s {gateway_url}/v1/chat/completions -H 'Authorization: Bearer {hello.key}' -d '{json.dumps(body)}'"
