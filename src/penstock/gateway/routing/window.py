"""Which targets' context windows can hold a prompt, judged before any of them is called.

A prompt has no more tokens than bytes, so most requests are only measured. For the others there is an estimate: four
bytes of text a token (of a long text that is not ASCII, by samples), 1,000 tokens an image, 4 a message. A target whose
window is not known is never skipped.
"""

from collections.abc import Sequence
from typing import Any

import msgspec

from penstock.domain.catalogue import Target
from penstock.domain.chat import ChatRequest, Message
from penstock.domain.errors import PenstockError

_BYTES_PER_TOKEN = 4
_IMAGE_TOKENS = 1_000
_MESSAGE_TOKENS = 4
# A long text that is not ASCII is measured by so many parts of so many characters.
_SAMPLES, _SAMPLE = 32, 256


def fitting(targets: Sequence[Target], chat: ChatRequest, size: int) -> Sequence[Target]:
    """The targets that can hold the prompt of a body of ``size`` bytes. Raises PenstockError
    context_length_exceeded."""
    for target in targets:
        if target.context_window is not None and target.context_window < size:
            break
    else:
        return targets
    tokens = estimate(chat)
    fits = [target for target in targets if target.context_window is None or target.context_window >= tokens]
    if not fits:
        largest = max(target.context_window or 0 for target in targets)
        message = (
            f"The prompt has about {tokens} tokens, and the context window of this model holds {largest}. "
            "Shorten the messages."
        )
        raise PenstockError("context_length_exceeded", message, param="messages")
    return fits


def estimate(chat: ChatRequest) -> int:
    """About how many tokens the prompt has."""
    size, images = 0, 0
    for message in chat.messages:
        text, pictures = _content(message)
        size += text + _calls(message)
        images += pictures
    for extra in (chat.tools, chat.response_format):
        if extra is not None:
            size += len(msgspec.json.encode(extra))
    return size // _BYTES_PER_TOKEN + images * _IMAGE_TOKENS + len(chat.messages) * _MESSAGE_TOKENS


def _content(message: Message) -> tuple[int, int]:
    """Bytes of text, and images."""
    content = message.content
    if not isinstance(content, list):
        return _bytes(content), 0
    images = sum(part.get("type") == "image_url" for part in content)
    return sum(_bytes(part.get("text")) for part in content), images


def _calls(message: Message) -> int:
    calls = message.tool_calls or ()
    return sum(_bytes(call.function.name) + _bytes(call.function.arguments) for call in calls)


def _bytes(text: Any) -> int:
    if not isinstance(text, str):
        return 0
    if text.isascii():
        return len(text)
    if len(text) <= _SAMPLES * _SAMPLE:
        return _encoded(text)
    # Encoding all of a long text costs as much as parsing its request.
    step = len(text) // _SAMPLES
    return sum(_encoded(text[at : at + _SAMPLE]) for at in range(0, _SAMPLES * step, step)) * step // _SAMPLE


def _encoded(text: str) -> int:
    return len(text.encode("utf-8", "replace"))
