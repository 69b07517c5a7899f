"""ai:models:call: one prompt to a model resource, whatever kind of model it is."""

import base64
import json
import os
from pathlib import Path
from typing import Any, NamedTuple

import click

from penstock.cli import output, resources
from penstock.cli.client import Platform
from penstock.cli.gateway import Gateway
from penstock.cli.options import app_option, json_option, packed, with_platform
from penstock.cli.output import CliError


class Question(NamedTuple):
    """The options of one call."""

    model_resource: str | None
    app: str | None
    prompt: str | None
    model: str | None
    opts: str | None
    optfile: Path | None
    output: Path | None
    json_: bool


@click.command("ai:models:call")
@click.argument("model_resource", required=False)
@app_option(required=False)
@click.option("-p", "--prompt", metavar="TEXT", help="The prompt.")
@click.option(
    "-m",
    "--model",
    metavar="MODEL",
    help="The model, on the standard plan (default: standard, the server's own choice).",
)
@click.option("--opts", metavar="JSON", help="More fields of the request, as a JSON object.")
@click.option("--optfile", type=click.Path(path_type=Path), metavar="FILE", help="The same, from a file.")
@click.option("-o", "--output", type=click.Path(path_type=Path), metavar="FILE", help="Write the answer to a file.")
@json_option
@with_platform
@packed(Question)
def call(platform: Platform, question: Question) -> None:
    """Send one prompt to a model resource, by name or alias (default: the app's only one)."""
    if not (question.prompt or question.opts or question.optfile):
        raise click.UsageError("You must provide either --prompt, --optfile, or --opts.")
    options = _options(question)
    if question.output is not None:
        _check_writable(question.output)
    access = resources.access(platform, resources.find_resource(platform, question.model_resource, question.app))
    if access.model and question.model and question.model != access.model:
        raise CliError(f"This resource is on the plan of {access.model}; leave --model out, or use the standard plan.")
    model = access.model or question.model or "standard"
    with Gateway(access.url, access.key) as gateway:
        kind = _kind(platform, model)
        if kind == "text-to-text":
            _print(question, *_chat(gateway, model, question.prompt, options))
        elif kind == "text-to-embedding":
            _print(question, *_embedding(gateway, model, question.prompt, options))
        elif kind == "text-to-image":
            _print(question, *_image(gateway, model, question.prompt, options))
        else:
            raise CliError(f"{model} is a {kind} model, which this command cannot call.")


def _check_writable(path: Path) -> None:
    """Raise CliError before an answer is paid for that could not be kept. Leaves no file behind."""
    reason = None
    if path.is_dir():
        reason = "it is a folder"
    elif path.exists():
        reason = None if os.access(path, os.W_OK) else "no permission"
    elif not path.parent.is_dir():
        reason = f"there is no folder {path.parent}"
    elif not os.access(path.parent, os.W_OK | os.X_OK):
        reason = f"no permission in {path.parent}"
    if reason is not None:
        raise CliError(f"--output {path} cannot be written: {reason}.")


def _kind(platform: Platform, model: str) -> str:
    for one in platform.get_all("/available-models"):
        if one.get("model_id") == model and one.get("type"):
            return str(one["type"][0])
    # Perhaps an alias: the gateway knows, or says that it does not.
    return "text-to-text"


def _options(question: Question) -> dict[str, Any]:
    options: dict[str, Any] = {}
    sources = []
    if question.optfile:
        try:
            sources.append((str(question.optfile), question.optfile.read_text(encoding="utf-8")))
        except OSError as error:
            raise CliError(f"--optfile {question.optfile} cannot be read: {error.strerror or error}.") from error
        except UnicodeDecodeError as error:
            raise CliError(f"--optfile {question.optfile} is not UTF-8 text.") from error
    if question.opts:
        sources.append(("--opts", question.opts))
    for where, text in sources:
        try:
            found = json.loads(text)
        except ValueError as error:
            raise CliError(f"Invalid JSON in {where}: {error}") from error
        if not isinstance(found, dict):
            raise CliError(f"{where} must hold a JSON object.")
        options |= found
    return options


def _chat(gateway: Gateway, model: str, prompt: str | None, options: dict[str, Any]) -> tuple[Any, str]:
    rest = {key: item for key, item in options.items() if key not in ("prompt", "messages", "stream")}
    messages = list(options.get("messages", []))
    if text := prompt or options.get("prompt"):
        messages.append({"role": "user", "content": text})
    answer = gateway.post("/v1/chat/completions", {**rest, "model": model, "messages": messages})
    message = answer["choices"][0]["message"]
    return answer, message.get("content") or json.dumps(message.get("tool_calls", ""), ensure_ascii=False)


def _embedding(gateway: Gateway, model: str, prompt: str | None, options: dict[str, Any]) -> tuple[Any, str]:
    rest = {key: item for key, item in options.items() if key not in ("input", "prompt")}
    answer = gateway.post("/v1/embeddings", {**rest, "model": model, "input": prompt or options.get("input")})
    return answer, ",".join(str(number) for number in answer["data"][0]["embedding"])


def _image(gateway: Gateway, model: str, prompt: str | None, options: dict[str, Any]) -> tuple[Any, str | bytes]:
    body = {**options, "model": model, "prompt": prompt or options.get("prompt")}
    answer = gateway.post("/v1/images/generations", body)
    first = answer["data"][0]
    return answer, base64.b64decode(first["b64_json"]) if first.get("b64_json") else str(first.get("url", ""))


def _print(question: Question, answer: Any, content: str | bytes) -> None:
    if question.json_ and question.output is None:
        output.as_json(answer)
    elif question.output is not None:
        text = json.dumps(answer, indent=2, ensure_ascii=False) + "\n" if question.json_ else content
        question.output.write_bytes(text if isinstance(text, bytes) else text.encode("utf-8", "replace"))
    elif isinstance(content, bytes):
        output.value(base64.b64encode(content).decode())
    else:
        output.value(content)
