"""Gemini's own bytes: generateContent, and streamGenerateContent with alt=sse."""

import json
from typing import Any

from tests.providers.vendors import Answer

Json = dict[str, Any]
# google.rpc.Status by our kinds of failure, with the messages that the API gives (2026-11-23).
ERRORS: dict[str, tuple[int, str, str]] = {
    "invalid": (400, "INVALID_ARGUMENT", "Invalid value at 'contents[0]'."),
    "unauthorized": (400, "INVALID_ARGUMENT", "API key not valid. Please pass a valid API key."),
    "forbidden": (403, "PERMISSION_DENIED", "Your project has no access to this model."),
    "not_found": (404, "NOT_FOUND", "models/nope is not found for API version v1beta."),
    "rate_limited": (429, "RESOURCE_EXHAUSTED", "You exceeded your current quota."),
    "overloaded": (503, "UNAVAILABLE", "The model is overloaded. Please try again later."),
    "internal": (500, "INTERNAL", "An internal error has occurred."),
    "too_long": (
        400,
        "INVALID_ARGUMENT",
        "The input token count (1200293) exceeds the maximum number of tokens allowed (1048576).",
    ),
}
FINISHES = {"stop": "STOP", "length": "MAX_TOKENS", "tool_calls": "STOP", "content_filter": "SAFETY"}
KEY = "AIza-double-0123456789"


def event(answer: Json) -> bytes:
    """One event of the stream; the API ends its lines with CRLF."""
    return b"data: " + json.dumps(answer, ensure_ascii=False).encode() + b"\r\n\r\n"


def response(parts: list[Json], finish: str | None = None, *, usage: Json | None = None, index: int = 0) -> Json:
    """A GenerateContentResponse with one candidate."""
    candidate: Json = {"content": {"parts": parts, "role": "model"}, "index": index}
    if finish is not None:
        candidate["finishReason"] = finish
    made: Json = {"candidates": [candidate], "modelVersion": "gemini-3-flash", "responseId": "resp-1"}
    return made if usage is None else made | {"usageMetadata": usage}


def refusal(kind: str) -> Json:
    """The error body."""
    status, name, message = ERRORS[kind]
    error: Json = {"code": status, "message": message, "status": name}
    if kind == "unauthorized":
        info = "type.googleapis.com/google.rpc.ErrorInfo"
        error["details"] = [{"@type": info, "reason": "API_KEY_INVALID", "domain": "googleapis.com"}]
    if kind == "rate_limited":
        quota = {"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": []}
        error["details"] = [quota, {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "6.123456789s"}]
    return {"error": error}


def usage(answer: Answer) -> Json:
    """The whole answer's counts."""
    entered, generated, cached, _ = answer.usage
    counts = {"promptTokenCount": entered, "candidatesTokenCount": generated, "totalTokenCount": entered + generated}
    return counts | ({"cachedContentTokenCount": cached} if cached else {})


class Double:
    """Says answers and failures as Gemini does."""

    kind = "gemini"
    stream_type = "text/event-stream"
    thinks = True
    environ = {"DOUBLE_GEMINI_KEY": KEY}

    def row(self, base: str) -> str:
        return (
            f'[[provider]]\nname = "double"\nkind = "gemini"\nbase_url = "{base}"\napi_key_env = "DOUBLE_GEMINI_KEY"\n'
        )

    def plain(self, answer: Answer) -> bytes:
        parts = [part for piece in self._pieces(answer._replace(pieces=1)) for part in piece]
        return json.dumps(response(parts, FINISHES[answer.finish], usage=usage(answer))).encode()

    def events(self, answer: Answer) -> list[bytes]:
        pieces = self._pieces(answer)
        running = {"promptTokenCount": answer.usage[0], "totalTokenCount": answer.usage[0]}
        made = [event(response(piece, usage=running)) for piece in pieces[:-1]]
        return [*made, event(response(pieces[-1], FINISHES[answer.finish], usage=usage(answer)))]

    def usage_early(self, answer: Answer) -> list[bytes] | None:
        pieces = self._pieces(answer)
        made = [event(response(piece, usage=usage(answer))) for piece in pieces[:-1]]
        return [*made, event(response(pieces[-1], FINISHES[answer.finish]))]

    def noise(self) -> list[bytes]:
        return [b": keep-alive\r\n\r\n", event({"responseId": "resp-1"}), event(response([{"text": ""}]))]

    def error(self, kind: str) -> tuple[int, dict[str, str], bytes]:
        return ERRORS[kind][0], {"content-type": "application/json"}, json.dumps(refusal(kind), indent=2).encode()

    def error_event(self) -> bytes:
        return event(refusal("overloaded"))

    def request(self, body: bytes) -> dict[str, Any]:
        sent = json.loads(body)
        parts = [part for content in sent["contents"] for part in content["parts"]]
        texts = [part["text"] if "text" in part else _result(part) for part in parts if _says(part)]
        return {
            "system": "\n".join(part["text"] for part in sent.get("systemInstruction", {}).get("parts", ())),
            "texts": texts,
            "tools": [tool["name"] for tools in sent.get("tools", ()) for tool in tools["functionDeclarations"]],
            "max_tokens": sent.get("generationConfig", {}).get("maxOutputTokens"),
        }

    def _pieces(self, answer: Answer) -> list[list[Json]]:
        """The parts of each event: thoughts, text in pieces, then calls, each of them whole, and never none."""
        made: list[list[Json]] = [[{"text": cut, "thought": True}] for cut in _cut(answer.thinking, answer.pieces)]
        made += [[{"text": cut}] for cut in _cut(answer.text, answer.pieces)]
        for identity, name, arguments in answer.calls:
            made.append([{"functionCall": {"id": identity, "name": name, "args": json.loads(arguments)}}])
        return [*made, [{"text": ""}]]


def _cut(text: str, pieces: int) -> list[str]:
    size = -(-len(text) // pieces) or 1
    return [text[at : at + size] for at in range(0, len(text), size)]


def _says(part: Json) -> bool:
    return "functionResponse" in part or bool(part.get("text"))


def _result(part: Json) -> str:
    response = part["functionResponse"]["response"]
    output = response.get("output") if len(response) == 1 else None
    return output if isinstance(output, str) else json.dumps(response)
