"""OpenAI's chat completions as its servers write them."""

import json
from typing import Any

from tests.providers.vendors import Answer

_ID = {"id": "chatcmpl-1", "created": 1_790_000_000, "model": "gpt-double", "system_fingerprint": "fp_1"}
# Status, type, code and message of each refusal.
_REFUSALS: dict[str, tuple[int, str, str | None, str]] = {
    "invalid": (400, "invalid_request_error", "invalid_value", "Invalid value for 'temperature'."),
    "unauthorized": (401, "invalid_request_error", "invalid_api_key", "Incorrect API key provided: sk-double-****."),
    "forbidden": (403, "invalid_request_error", None, "You have insufficient permissions for this operation."),
    "not_found": (404, "invalid_request_error", "model_not_found", "The model does not exist."),
    "rate_limited": (429, "tokens", "rate_limit_exceeded", "Rate limit reached. Please try again in 7s."),
    "overloaded": (503, "server_error", None, "The engine is currently overloaded, please try again later."),
    "internal": (500, "server_error", None, "The server had an error while processing your request."),
    "too_long": (
        400,
        "invalid_request_error",
        "context_length_exceeded",
        "This model's maximum context length is 8192 tokens. However, your messages resulted in 9000 tokens.",
    ),
}


class Double:
    """OpenAI, and what others that speak like it need not say again."""

    kind = "openai"
    stream_type = "text/event-stream"
    thinks = False
    environ = {"DOUBLE_KEY": "sk-double-4f9a1c7e55aa"}

    def row(self, base: str) -> str:
        """A key in a header, which is the default."""
        return f'[[provider]]\nname = "double"\nkind = "{self.kind}"\nbase_url = "{base}"\napi_key_env = "DOUBLE_KEY"\n'

    def plain(self, answer: Answer) -> bytes:
        """One choice with the message."""
        message: dict[str, Any] = {"role": "assistant", "content": answer.text or None, "refusal": None}
        if answer.calls:
            message["tool_calls"] = [
                {"id": id_, "type": "function", "function": {"name": name, "arguments": arguments}}
                for id_, name, arguments in answer.calls
            ]
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": answer.finish}
        whole = {**_ID, "object": "chat.completion", "choices": [choice], "usage": _usage(answer)}
        return json.dumps(whole, ensure_ascii=False).encode()

    def events(self, answer: Answer) -> list[bytes]:
        """The role, the deltas, the finish, the usage, the mark."""
        return [*self._deltas(answer), self._said({}, answer.finish), self._counted(answer), b"data: [DONE]\n\n"]

    def usage_early(self, answer: Answer) -> list[bytes] | None:
        """Some servers of the dialect count before they finish."""
        return [*self._deltas(answer), self._counted(answer), self._said({}, answer.finish), b"data: [DONE]\n\n"]

    def noise(self) -> list[bytes]:
        """Comments, as proxies of this dialect send them, and a delta of nothing."""
        return [b": PROCESSING\n\n", b":\n\n", self._said({"content": ""})]

    def error(self, kind: str) -> tuple[int, dict[str, str], bytes]:
        """The error object, and Retry-After where it is told to wait."""
        status, type_, code, message = _REFUSALS[kind]
        headers = {"retry-after": "7", "retry-after-ms": "7000"} if kind == "rate_limited" else {}
        error = {"message": message, "type": type_, "param": None, "code": code}
        return status, headers, json.dumps({"error": error}, indent=2).encode()

    def error_event(self) -> bytes:
        """The same object in an event."""
        error = {"message": "The server is overloaded.", "type": "server_error", "param": None, "code": "overloaded"}
        return b"event: error\ndata: " + json.dumps({"error": error}).encode() + b"\n\n"

    def request(self, body: bytes) -> dict[str, Any]:
        """Texts of plain strings and of text parts."""
        data = json.loads(body)
        said = [
            (message["role"] in ("system", "developer"), text)
            for message in data["messages"]
            for text in _texts(message)
        ]
        return {
            "system": "\n".join(text for is_system, text in said if is_system),
            "texts": [text for is_system, text in said if not is_system],
            "tools": [tool["function"]["name"] for tool in data.get("tools") or ()],
            "max_tokens": data.get("max_completion_tokens", data.get("max_tokens")),
        }

    def _deltas(self, answer: Answer) -> list[bytes]:
        events = [self._said({"role": "assistant", "content": "" if answer.text else None, "refusal": None})]
        events += [self._said({"content": piece}) for piece in _cut(answer.text, answer.pieces)]
        for index, (id_, name, arguments) in enumerate(answer.calls):
            begun = {"index": index, "id": id_, "type": "function", "function": {"name": name, "arguments": ""}}
            events.append(self._said({"tool_calls": [begun]}))
            for piece in _cut(arguments, answer.pieces):
                events.append(self._said({"tool_calls": [{"index": index, "function": {"arguments": piece}}]}))
        return events

    def _said(self, delta: dict[str, Any], finish: str | None = None) -> bytes:
        return self._chunk([{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}])

    def _counted(self, answer: Answer) -> bytes:
        return self._chunk([], usage=_usage(answer))

    def _chunk(self, choices: list[dict[str, Any]], **fields: Any) -> bytes:
        chunk = {**_ID, "object": "chat.completion.chunk", "choices": choices, "usage": None, **fields}
        return b"data: " + json.dumps(chunk, ensure_ascii=False, separators=(",", ":")).encode() + b"\n\n"


def _usage(answer: Answer) -> dict[str, Any]:
    prompt, output, cached, written = answer.usage
    return {
        "prompt_tokens": prompt,
        "completion_tokens": output,
        "total_tokens": prompt + output,
        "prompt_tokens_details": {"cached_tokens": cached, "cache_write_tokens": written, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0},
    }


def _cut(text: str, pieces: int) -> list[str]:
    size = max(1, -(-len(text) // pieces))
    return [text[start : start + size] for start in range(0, len(text), size)]


def _texts(message: dict[str, Any]) -> list[str]:
    content = message.get("content")
    if isinstance(content, str):
        return [content]
    return [part["text"] for part in content or () if part["type"] == "text"]
