"""Calls Amazon Bedrock's runtime by Converse, signed with AWS keys or with a Bedrock API key as bearer."""

import base64
import re
from functools import lru_cache
from urllib.parse import quote, urlsplit

import msgspec

from penstock.domain.chat import BoundRequest
from penstock.domain.errors import UpstreamError
from penstock.providers.bedrock import limits
from penstock.providers.bedrock.credentials import Source
from penstock.providers.bedrock.events import Reader, whole
from penstock.providers.bedrock.failures import Failures
from penstock.providers.bedrock.families import Family, family_of
from penstock.providers.bedrock.request import fields_of, honoured, keeps, linked_images, may_think, unsaid, write
from penstock.providers.bedrock.sign import Keys, Signer
from penstock.providers.images import ImagesOfOne
from penstock.providers.spec import Bound
from penstock.providers.translation.dialect import Call, TranslatedAdapter
from penstock.providers.translation.fields import Fields
from penstock.providers.translation.parts import Part
from penstock.providers.translation.turns import Conversation, InlineImage, conversation
from penstock.providers.transport import Headers

_REGION = re.compile(r"bedrock-runtime[a-z-]*\.([a-z0-9-]+)\.")
_DEFAULT_REGION = "us-east-1"
_quoted = lru_cache(maxsize=256)(quote)


def make(bound: Bound) -> TranslatedAdapter:
    """The adapter of one provider of this kind."""
    return TranslatedAdapter(bound.transport, Converse(bound))


class Converse:
    """The dialect. What a model thinks is shown to the clients that ask for it, no others (heroku-wire.md 2.1)."""

    stream_type = "application/vnd.amazon.eventstream"

    def __init__(self, bound: Bound) -> None:
        spec, credential = bound.spec, bound.credential
        key_id = credential.access_key_id if credential else None
        self._bearer = credential.secret if credential and key_id is None else None
        static = Keys(key_id, credential.secret, credential.session_token) if credential and key_id else None
        self._source = Source(static=static, profile=None if credential else spec.aws_profile)
        self._failures = Failures(self._secrets, self._source.expired)
        self._images = bound.images
        url = urlsplit(spec.base_url)
        named = _REGION.search(url.netloc)
        # A host that names its region takes no signature for another.
        region = named[1] if named else spec.region or _DEFAULT_REGION
        host = url.netloc.rpartition("@")[2]
        self._signer = Signer(region=region, host=host, base_path=url.path.rstrip("/"))
        self._extra_headers: Headers = spec.headers

    async def call(self, request: BoundRequest) -> Call:
        """The request in the vendor's words, signed."""
        chat, family = request.chat, family_of(request.target_model)
        fields = _fields_for(request)
        if not family.samples and 1 in (chat.temperature, chat.top_p):
            # Its own value is all that such a model takes, and asks for nothing.
            own = {name: None for name in ("temperature", "top_p") if getattr(chat, name) == 1}
            request = msgspec.structs.replace(request, chat=msgspec.structs.replace(chat, **own))
        fields.check(request.chat)
        said = _said(request, family)
        request = limits.settled(honoured(request, fields), resumes=may_think(said))
        images, fetcher = {}, ImagesOfOne(self._images)
        for link in linked_images(said):
            image = await fetcher.fetch(link.url, link.param)
            images[link] = InlineImage(image.media_type, base64.b64encode(image.data).decode())
        body = write(request, family, said, images)
        verb = "converse-stream" if request.chat.stream else "converse"
        path = f"/model/{_quoted(request.target_model, '')}/{verb}"
        return Call(path, (*await self._signed(path, body), *self._extra_headers), body)

    def reader(self, request: BoundRequest) -> Reader:
        """A new reader of a streamed answer."""
        return Reader(self._failures, show=request.chat.shows_reasoning)

    def whole(self, request: BoundRequest, body: bytes) -> list[Part]:
        """The parts of a plain answer."""
        return whole(body, self._failures, show=request.chat.shows_reasoning)

    def fault(self, status: int, headers: dict[str, str], body: bytes) -> UpstreamError:
        """The public error for an answer that is none."""
        return self._failures.of(status, headers, body)

    def ignored(self, request: BoundRequest) -> tuple[str, ...]:
        """Parameters that are set and have no effect here."""
        fields = _fields_for(request)
        taken = honoured(request, fields)
        resumes = not limits.has_budget(taken) or may_think(_said(request, family_of(request.target_model)))
        return fields.ignored(request.chat) + unsaid(request.chat) + limits.named(taken, resumes=resumes)

    async def _signed(self, path: str, body: bytes) -> Headers:
        if self._bearer is not None:
            return (("content-type", "application/json"), ("authorization", f"Bearer {self._bearer}"))
        return self._signer.headers(await self._source.keys(), path, body)

    def _secrets(self) -> tuple[str, ...]:
        return (self._bearer,) if self._bearer else self._source.secrets()


def _fields_for(request: BoundRequest) -> Fields:
    wanted = request.chat.response_format
    return fields_of(request.target_model, json_object=wanted is not None and wanted.type == "json_object")


def _said(request: BoundRequest, family: Family) -> Conversation:
    return conversation(request.chat, keeps=lambda thought: keeps(thought, family))
