"""Azure OpenAI: the same dialect, with the results of content filters in every answer and errors of its own."""

import json
from typing import Any

from tests.providers.vendors import Answer
from tests.providers.vendors.openai import Double as OpenAI

_FILTERS = {name: {"filtered": False, "severity": "safe"} for name in ("hate", "self_harm", "sexual", "violence")}
_REFUSALS = {
    "unauthorized": (401, "401", "Access denied due to invalid subscription key or wrong API endpoint."),
    "forbidden": (403, "403", "Public access is disabled. Please configure private endpoint."),
    "not_found": (404, "DeploymentNotFound", "The API deployment for this resource does not exist."),
    "rate_limited": (429, "429", "Requests have exceeded the rate limit. Please retry after 7 seconds."),
    "overloaded": (503, "ServiceUnavailable", "The service is temporarily unable to process your request."),
    "internal": (500, "InternalServerError", "The server had an error while processing your request."),
}


class Double(OpenAI):
    """One resource with a deployment."""

    kind = "azure"

    def row(self, base: str) -> str:
        """The endpoint, with an API key."""
        return super().row(base)

    def plain(self, answer: Answer) -> bytes:
        """The same, filtered."""
        whole = json.loads(super().plain(answer))
        whole["prompt_filter_results"] = [{"prompt_index": 0, "content_filter_results": _FILTERS}]
        whole["choices"][0]["content_filter_results"] = _FILTERS
        return json.dumps(whole, ensure_ascii=False).encode()

    def events(self, answer: Answer) -> list[bytes]:
        """Before all the prompt's filters, in a chunk without choices."""
        return [self._prompt(), *super().events(answer)]

    def usage_early(self, answer: Answer) -> list[bytes] | None:
        """Azure has one order."""
        return None

    def error(self, kind: str) -> tuple[int, dict[str, str], bytes]:
        """Codes of Azure's own; what the model itself says is as OpenAI writes it."""
        if kind not in _REFUSALS:
            return super().error(kind)
        status, code, message = _REFUSALS[kind]
        headers = {"retry-after": "7", "retry-after-ms": "7000"} if kind == "rate_limited" else {}
        return status, headers, json.dumps({"error": {"code": code, "message": message}}).encode()

    def _prompt(self) -> bytes:
        return self._chunk([], prompt_filter_results=[{"prompt_index": 0, "content_filter_results": _FILTERS}])

    def _said(self, delta: dict[str, Any], finish: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "finish_reason": finish, "content_filter_results": _FILTERS}
        return self._chunk([choice])
