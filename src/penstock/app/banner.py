"""What ``penstock serve`` prints once it is ready."""

import json
import sys
from importlib.util import find_spec

import msgspec

from penstock.app.boot import Boot
from penstock.domain.catalogue import Catalogue
from penstock.engine.drivers import chosen


class Hello(msgspec.Struct, frozen=True):
    """The app that the very first start made, and its key."""

    app: str
    key: str

    def __repr__(self) -> str:
        return f"Hello({self.app})"


def print_banner(catalogue: Catalogue, boot: Boot, *, gateway_url: str, hello: Hello | None) -> None:
    """Addresses, models, stand-ins, the first curl line, and the ready line last."""
    settings = boot.settings
    own = [model.id for model in catalogue.served if model.stand_in is None]
    stand_ins = [model.id for model in catalogue.models if model.stand_in is not None]
    unserved = len(catalogue.models) - len(catalogue.served)
    lines = [
        f"Penstock serves in {settings.serve.mode} mode.",
        f"  gateway        {gateway_url}{' (compiled)' if is_compiled() else ''}",
        f"  control plane  {boot.control_url}",
        f"  home           {settings.home}",
        f"  models         {', '.join(own) or 'none'}",
        f"  engine         {chosen(settings.engine.driver).name if boot.engines else 'none'}",
    ]
    if stand_ins:
        lines.append(
            f"  stand-ins      {len(stand_ins)} ids answered by {settings.engine.model}, not by their real models:"
        )
        lines += [f"                 {row}" for row in _rows(stand_ins)]
    if unserved:
        lines.append(f"  not served     {unserved} ids have no provider and answer 503")
    if hello is not None:
        made = f"Made the app '{hello.app}' with an attached INFERENCE. Try:"
        lines += ["", made, "", _curl(gateway_url, settings.engine.model, hello)]
    lines += ["", f"ready gateway={gateway_url} control={boot.control_url}"]
    print("\n".join(lines), flush=True)


def is_compiled() -> bool:
    """Whether the modules that every request runs through are machine code here (scripts/native.py)."""
    found = find_spec("penstock.gateway.pipeline")
    return found is not None and not (found.origin or "").endswith(".py")


def _rows(names: list[str], per_row: int = 5) -> list[str]:
    return [", ".join(names[start : start + per_row]) for start in range(0, len(names), per_row)]


def _curl(gateway_url: str, model: str, hello: Hello) -> str:
    body = {"model": model, "messages": [{"role": "user", "content": "Say hello."}], "max_tokens": 30}
    # The key is shown once, to the person at the terminal who makes the installation, and never to a log.
    key = hello.key if sys.stdout.isatty() else f"$(penstock config:get INFERENCE_KEY -a {hello.app})"
    return f"curl -s {gateway_url}/v1/chat/completions -H \"Authorization: Bearer {key}\" -d '{json.dumps(body)}'"
