"""The adapter of Gemini's native API."""

import base64
from urllib.parse import quote

from penstock.domain.chat import BoundRequest
from penstock.domain.errors import UpstreamError
from penstock.providers.gemini.errors import read_error
from penstock.providers.gemini.events import GeminiReader, whole
from penstock.providers.gemini.request import FIELDS, body
from penstock.providers.images import ImagesOfOne
from penstock.providers.spec import Bound, Images
from penstock.providers.translation.dialect import Call, TranslatedAdapter
from penstock.providers.translation.fields import Fields
from penstock.providers.translation.parts import Part
from penstock.providers.translation.turns import (
    Conversation,
    InlineImage,
    Item,
    LinkedImage,
    Result,
    Turn,
    conversation,
)
from penstock.providers.transport import Headers


def make(bound: Bound) -> TranslatedAdapter:
    """The adapter of one provider of this kind."""
    return TranslatedAdapter(bound.transport, GeminiDialect(bound))


class GeminiDialect:
    """generateContent, and streamGenerateContent as server-sent events."""

    stream_type = "text/event-stream"

    def __init__(self, bound: Bound) -> None:
        self._images = bound.images
        self._fields = Fields("Gemini", FIELDS)
        self._credential = bound.credential.secret if bound.credential else None
        headers = [("content-type", "application/json"), *bound.spec.headers]
        if self._credential:
            headers.append(("x-goog-api-key", self._credential))  # never in the URL: proxies write those down
        self._headers: Headers = tuple(headers)

    async def call(self, request: BoundRequest) -> Call:
        """The request in Gemini's words. Raises PenstockError."""
        self._fields.check(request.chat)
        talk = await _fetched(conversation(request.chat), ImagesOfOne(self._images))
        model = request.target_model if "/" in request.target_model else f"models/{request.target_model}"
        action = "streamGenerateContent?alt=sse" if request.chat.stream else "generateContent"
        return Call(f"/{quote(model, safe='/')}:{action}", self._headers, body(request, talk))

    def reader(self, request: BoundRequest) -> GeminiReader:
        """A new reader of a streamed answer."""
        return GeminiReader(request.chat.n or 1, self._credential)

    def whole(self, _: BoundRequest, body: bytes) -> list[Part]:
        """The parts of a plain answer."""
        return whole(body, self._credential)

    def fault(self, status: int, headers: dict[str, str], body: bytes) -> UpstreamError:
        """The public error of a refusal."""
        return read_error(status, headers, body, self._credential)

    def ignored(self, request: BoundRequest) -> tuple[str, ...]:
        """Parameters that are set and have no effect here."""
        return self._fields.ignored(request.chat)


async def _fetched(talk: Conversation, images: Images) -> Conversation:
    """The conversation with every linked image in it: Gemini takes no addresses but those of its own file store."""
    return Conversation(
        talk.system, [Turn(turn.role, [await _item(item, images) for item in turn.items]) for turn in talk.turns]
    )


async def _item(item: Item, images: Images) -> Item:
    if isinstance(item, LinkedImage):
        return await _image(item, images)
    if isinstance(item, Result):
        content = [await _image(part, images) if isinstance(part, LinkedImage) else part for part in item.content]
        return item._replace(content=tuple(content))
    return item


async def _image(item: LinkedImage, images: Images) -> InlineImage:
    found = await images.fetch(item.url, item.param)
    return InlineImage(found.media_type, base64.b64encode(found.data).decode())
