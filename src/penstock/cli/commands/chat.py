"""The chat command: a conversation with a model whose answers stream in; ctrl-C stops the answer, not the program."""

import contextlib
import sys
from typing import Any, NamedTuple

import click

from penstock.cli import output, resources
from penstock.cli.client import Platform, PlatformError, segment
from penstock.cli.gateway import Gateway
from penstock.cli.options import app_option, packed, with_platform
from penstock.cli.output import CliError

_HELLO = "hello"
_HELP = (
    "/model [ID]  show or change the model    /system [TEXT]  set the system prompt    /clear  forget    /exit  leave"
)


class Opening(NamedTuple):
    """The options a conversation starts with."""

    app: str | None
    model_resource: str | None
    model: str | None
    system: str | None
    max_tokens: int | None


@click.command("chat")
@click.argument("model_resource", required=False)
@app_option(required=False)
@click.option("-m", "--model", metavar="MODEL", help="The model, on the standard plan.")
@click.option("--system", metavar="TEXT", help="The system prompt.")
@click.option("--max-tokens", type=click.IntRange(min=1), metavar="N", help="The longest answer, in tokens.")
@with_platform
@packed(Opening)
def chat(platform: Platform, opening: Opening) -> int:
    """Talk with a model of an app (default: HEROKU_APP, or the app hello). Lines piped in are answered in turn."""
    app = opening.app or (None if opening.model_resource else _default_app(platform))
    access = resources.access(platform, _resource(platform, opening.model_resource, app))
    with Gateway(access.url, access.key) as gateway:
        model = opening.model or access.model or _first_model(gateway)
        return Conversation(gateway, model, opening).run()


class Conversation:
    """The messages so far, and the loop that reads a line and streams the answer."""

    def __init__(self, gateway: Gateway, model: str, opening: Opening) -> None:
        self._gateway = gateway
        self._model = model
        self._system = opening.system
        self._max_tokens = opening.max_tokens
        self._messages: list[dict[str, str]] = []
        self._terminal = sys.stdin.isatty()
        self._failed = False

    def run(self) -> int:
        """Converse until /exit or the end of input; 1 when input was piped and an answer failed."""
        if self._terminal:
            with contextlib.suppress(ImportError):
                import readline  # noqa: F401, PLC0415 - line editing, where the platform has it
            output.note(f"Talking with {self._model}. ctrl-C stops an answer, /exit or ctrl-D leaves, /help says more.")
        while (line := self._read()) is not None:
            if line.startswith("/"):
                if not self._command(line):
                    break
            elif line:
                self._turn(line)
        return 1 if self._failed and not self._terminal else 0

    def _read(self) -> str | None:
        try:
            if self._terminal:
                return input("> ").strip()
            line = sys.stdin.readline()
        except EOFError:
            output.note("")
            return None
        except KeyboardInterrupt:
            if not self._terminal:
                raise
            output.note("")
            return ""
        return line.strip() if line else None

    def _command(self, line: str) -> bool:
        name, _, rest = line[1:].partition(" ")
        rest = rest.strip()
        if name in ("exit", "quit"):
            return False
        if name == "clear":
            self._messages.clear()
            output.note("Forgotten.")
        elif name == "model":
            self._choose(rest)
        elif name == "system":
            self._system = rest or None
            output.note("System prompt set." if rest else "No system prompt.")
        else:
            output.note(_HELP if name == "help" else f"There is no /{name}. {_HELP}")
        return True

    def _choose(self, model: str) -> None:
        try:
            if model:
                self._gateway.get(f"/v1/models/{segment(model)}")
                self._model = model
        except CliError as error:
            output.error(error.message)
            self._failed = True
        output.note(f"Model: {self._model}")

    def _turn(self, line: str) -> None:
        pieces: list[str] = []
        stream = self._gateway.stream(self._body(line))
        try:
            for piece in stream:
                pieces.append(piece)
                click.echo(output.printable(piece), nl=False)
                sys.stdout.flush()
        except KeyboardInterrupt:
            output.note("\n[stopped]")
        except CliError as error:
            if pieces:
                output.value()
            output.error(error.message)
            self._failed = True
            return
        else:
            output.value()
        finally:
            stream.close()
        if pieces:
            self._messages += [_user(line), {"role": "assistant", "content": "".join(pieces)}]

    def _body(self, line: str) -> dict[str, Any]:
        system = [{"role": "system", "content": self._system}] if self._system else []
        body: dict[str, Any] = {"model": self._model, "messages": [*system, *self._messages, _user(line)]}
        if self._max_tokens is not None:
            body["max_tokens"] = self._max_tokens
        return body


def _user(line: str) -> dict[str, str]:
    return {"role": "user", "content": line}


def _default_app(platform: Platform) -> str:
    names = [str(one["name"]) for one in platform.get_all("/apps")]
    if _HELLO in names:
        return _HELLO
    if len(names) == 1:
        return names[0]
    raise click.UsageError("Say which app to talk through: penstock chat -a APP, or set HEROKU_APP.")


def _resource(platform: Platform, name: str | None, app: str | None) -> resources.Resource:
    try:
        return resources.find_resource(platform, name, app)
    except PlatformError as error:
        if name or error.resource not in resources.MISSES:
            raise
        raise CliError(
            f"{app} has no model resource. Provision one with: penstock ai:models:create MODEL -a {app}"
        ) from error


def _first_model(gateway: Gateway) -> str:
    models = gateway.get("/v1/models")["data"]
    if not models:
        raise CliError("The server has no models.")
    own = [one for one in models if not one.get("stand_in")]
    return str((own or models)[0]["id"])
