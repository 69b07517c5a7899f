"""A conversation as other vendors see it: instructions apart, turns that alternate, results beside their calls."""

import re
from collections.abc import Callable
from hashlib import sha256
from typing import Any, Literal, NamedTuple

import msgspec

from penstock.domain.chat import ChatRequest, Json, Message, ToolCall
from penstock.domain.errors import PenstockError

_DATA_URL = re.compile(r"data:(image/[a-z0-9.+-]+);base64,([A-Za-z0-9+/=\s]+)\Z", re.IGNORECASE)
_raw_object = msgspec.json.Decoder(dict[str, Any])
_NOT_IN_ID = re.compile(r"[^a-zA-Z0-9_-]")
_COMMON = {"image/png": "png", "image/jpeg": "jpeg", "image/jpg": "jpeg", "image/gif": "gif", "image/webp": "webp"}


class Text(NamedTuple):
    """Words; never nothing but blanks, which most vendors refuse."""

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
    """A tool call of an earlier turn; no two have one id."""

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


def plain_id(identity: str) -> str:
    """A call's id, or a tool's name, as Claude takes it, which refuses many others': Kimi's have dots (2026-11)."""
    plain = _NOT_IN_ID.sub("_", identity) or "call"
    # Gemini's carry a signature at their end, and Bedrock takes 64 characters.
    return plain if len(plain) <= 64 else f"{plain[:31]}_{sha256(identity.encode()).hexdigest()[:32]}"


def common_format(image: InlineImage, param: str) -> str:
    """png, jpeg, gif or webp. Raises PenstockError 400 for an image of another format."""
    if found := _COMMON.get(image.media_type):
        return found
    message = f"The target of this model takes png, jpeg, gif and webp images, not {image.media_type[:40]}."
    raise PenstockError("invalid_value", message, param=param)


def conversation(chat: ChatRequest, *, keeps: Callable[[Thought], bool] = lambda _: True) -> Conversation:
    """The request's messages; of the thoughts those that the vendor ``keeps``. A turn that has nothing to say is left
    out and its neighbours are one: vendors refuse two turns of one side in a row. Raises PenstockError 400 for a part
    that no vendor takes."""
    system: list[str] = []
    turns: list[Turn] = []
    calls = _Calls()
    for at, message in enumerate(chat.messages):
        where = f"messages[{at}]"
        if message.role in ("system", "developer"):
            system += _instructions(message, where)
            continue
        role: Literal["user", "assistant"] = "assistant" if message.role == "assistant" else "user"
        items = _items(message, where, calls)
        turns.append(Turn(role, [item for item in items if not isinstance(item, Thought) or keeps(item)]))
    # A thought alone is no turn: a vendor takes it for the beginning of an answer that it should continue.
    told = [turn for turn in _joined(turns) if not all(isinstance(item, Thought) for item in turn.items)]
    return Conversation(system, _joined(told))


def _joined(turns: list[Turn]) -> list[Turn]:
    """The turns alternating; results stand before what the user says beside them."""
    joined: list[Turn] = []
    for turn in turns:
        if joined and joined[-1].role == turn.role:
            joined[-1].items.extend(turn.items)
        else:
            joined.append(turn)
    for turn in joined:
        if turn.role == "user":
            turn.items.sort(key=lambda item: not isinstance(item, Result))
    return joined


class _Calls:
    """The calls of the history. Several servers number them anew in every turn, or give them no id: here each has one
    of its own, and a result belongs to the last message's first call of its id that has none yet."""

    def __init__(self) -> None:
        self._taken: set[str] = set()
        self._last: dict[str, Called] = {}
        self._waiting: dict[str, list[Called]] = {}

    def begin(self) -> None:
        """A message with calls: what is still waiting of earlier ones has no claim any more."""
        self._waiting.clear()

    def add(self, call: ToolCall) -> Called:
        """The call, with an id that no call before it has."""
        identity, number = call.id, 1
        while plain_id(identity) in self._taken:
            number += 1
            identity = f"{call.id}_{number}"
        self._taken.add(plain_id(identity))
        called = Called(identity, call.function.name, _arguments(call.function.arguments))
        self._last[call.id] = called
        self._waiting.setdefault(call.id, []).append(called)
        return called

    def result(self, identity: str, content: tuple[Content, ...]) -> Result:
        """What a tool answered to the call of that id."""
        if waiting := self._waiting.get(identity):
            self._last[identity] = waiting.pop(0)
        call = self._last.get(identity)
        return Result(identity, "", content) if call is None else Result(call.id, call.name, content)


def _instructions(message: Message, where: str) -> list[str]:
    found = _content(message, where)
    if not all(isinstance(item, Text) for item in found):
        text = "The target of this model takes no images in instructions; send them in a message of the user."
        raise PenstockError("unsupported_parameter", text, param=f"{where}.content")
    return [item.text for item in found if isinstance(item, Text)]


def _items(message: Message, where: str, calls: _Calls) -> list[Item]:
    if message.role == "tool":
        return [calls.result(message.tool_call_id or "", tuple(_content(message, where)))]
    if isinstance(message.function_call, dict):
        text = "The target of this model knows no function_call; write tool_calls."
        raise PenstockError("unsupported_parameter", text, param=f"{where}.function_call")
    items: list[Item] = [*_thoughts(message.reasoning), *_content(message, where)]
    if message.tool_calls:
        calls.begin()
        items += [calls.add(call) for call in message.tool_calls]
    return items


def _thoughts(reasoning: Json) -> list[Thought]:
    """Only a thought with its signature can go back: a vendor refuses any other. An encrypted one has no text."""
    if not isinstance(reasoning, dict):
        return []
    text, signature = reasoning.get("thinking") or "", reasoning.get("signature")
    if isinstance(text, str) and isinstance(signature, str) and signature:
        return [Thought(text, signature)]
    return []


def _arguments(text: str) -> dict[str, Json]:
    """The arguments of a call. What is no object, as of a call that was cut, goes as text under a name of ours: an
    agent answers such a call by asking the model to try again."""
    if text.strip() in ("", "null"):
        return {}
    try:
        return _raw_object.decode(text)
    except (ValueError, RecursionError):
        return {"invalid_arguments": text}


def _content(message: Message, where: str) -> list[Content]:
    content = message.refusal if message.content is None else message.content
    if content is None or isinstance(content, str):
        return [Text(content)] if content and content.strip() else []
    found = [_part(part, f"{where}.content[{at}]") for at, part in enumerate(content)]
    return [item for item in found if not isinstance(item, Text) or item.text.strip()]


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
    kind = found[1].lower().replace("image/jpg", "image/jpeg")  # what many clients write, and OpenAI takes (2026-11)
    return InlineImage(kind, "".join(found[2].split()))
