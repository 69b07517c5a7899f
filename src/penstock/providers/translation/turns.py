"""A conversation as other vendors see it: instructions apart, turns that alternate, results beside their calls."""

import re
from typing import Any, Literal, NamedTuple

import msgspec

from penstock.domain.chat import ChatRequest, Json, Message, ToolCall
from penstock.domain.errors import PenstockError

_DATA_URL = re.compile(r"data:(image/[a-z0-9.+-]+);base64,([A-Za-z0-9+/=\s]+)\Z", re.IGNORECASE)
_raw_object = msgspec.json.Decoder(dict[str, Any])


class Text(NamedTuple):
    """Words; never empty."""

    text: str


class InlineImage(NamedTuple):
    """An image that came with the request: ``image/png`` and the like, and its base64 text."""

    media_type: str
    base64: str


class LinkedImage(NamedTuple):
    """An image to be fetched; ``param`` is where the request names it."""

    url: str
    param: str


class Thought(NamedTuple):
    """What the model thought in an earlier turn, with its vendor's signature where the client kept it."""

    text: str
    signature: str


class Called(NamedTuple):
    """A tool call of an earlier turn."""

    id: str
    name: str
    arguments: dict[str, Json]


Content = Text | InlineImage | LinkedImage


class Result(NamedTuple):
    """What a tool answered; ``name`` is that of the call with the same id, empty when there is none."""

    id: str
    name: str
    content: tuple[Content, ...]


Item = Content | Thought | Called | Result


class Turn(NamedTuple):
    """One or more messages of one side."""

    role: Literal["user", "assistant"]
    items: list[Item]


class Conversation(NamedTuple):
    """All instructions of the request (system and developer messages, wherever they stand), and the turns."""

    system: list[str]
    turns: list[Turn]


def conversation(chat: ChatRequest) -> Conversation:
    """The request's messages. Raises PenstockError 400 for a part or an argument text that no vendor takes."""
    system: list[str] = []
    turns: list[Turn] = []
    names: dict[str, str] = {}
    for at, message in enumerate(chat.messages):
        where = f"messages[{at}]"
        if message.role in ("system", "developer"):
            system += [item.text for item in _content(message, where) if isinstance(item, Text)]
            continue
        role: Literal["user", "assistant"] = "assistant" if message.role == "assistant" else "user"
        if not turns or turns[-1].role != role:
            turns.append(Turn(role, []))
        turns[-1].items.extend(_items(message, where, names))
    return Conversation(system, [turn for turn in turns if turn.items])


def _items(message: Message, where: str, names: dict[str, str]) -> list[Item]:
    if message.role == "tool":
        identity = message.tool_call_id or ""
        return [Result(identity, names.get(identity, ""), tuple(_content(message, where)))]
    items: list[Item] = [*_thoughts(message.reasoning), *_content(message, where)]
    for number, call in enumerate(message.tool_calls or ()):
        names[call.id] = call.function.name
        items.append(_called(call, f"{where}.tool_calls[{number}].function.arguments"))
    return items


def _thoughts(reasoning: Json) -> list[Thought]:
    """Only a thought with its signature can go back: a vendor refuses any other."""
    if not isinstance(reasoning, dict):
        return []
    text, signature = reasoning.get("thinking"), reasoning.get("signature")
    if isinstance(text, str) and isinstance(signature, str) and signature:
        return [Thought(text, signature)]
    return []


def _called(call: ToolCall, param: str) -> Called:
    try:
        arguments = _raw_object.decode(call.function.arguments or "{}")
    except (ValueError, RecursionError):
        message = f"Invalid value for '{param}': must be the text of one JSON object."
        raise PenstockError("invalid_value", message, param=param) from None
    return Called(call.id, call.function.name, arguments)


def _content(message: Message, where: str) -> list[Content]:
    content = message.content
    if content is None or isinstance(content, str):
        return [Text(content)] if content else []
    found = [_part(part, f"{where}.content[{at}]") for at, part in enumerate(content)]
    return [item for item in found if item != Text("")]


def _part(part: dict[str, Json], param: str) -> Content:
    kind = part.get("type")
    text = part.get("refusal" if kind == "refusal" else "text")
    if kind in ("text", "refusal") and isinstance(text, str):
        return Text(text)
    if kind == "image_url":
        return _image(part.get("image_url"), f"{param}.image_url")
    message = f"The target of this model takes text and images; the part of type '{str(kind)[:40]}' cannot be used."
    raise PenstockError("unsupported_parameter", message, param=param)


def _image(link: Json, param: str) -> InlineImage | LinkedImage:
    url = link.get("url") if isinstance(link, dict) else link
    if not isinstance(url, str) or not url:
        raise PenstockError("invalid_type", f"Invalid value for '{param}': needs a url.", param=param)
    if url[:5].lower() != "data:":
        return LinkedImage(url, f"{param}.url")
    found = _DATA_URL.match(url)
    if found is None:
        message = f"Invalid value for '{param}.url': write data:image/TYPE;base64,DATA."
        raise PenstockError("invalid_value", message, param=f"{param}.url")
    return InlineImage(found[1].lower(), "".join(found[2].split()))
