"""Azure OpenAI: the OpenAI dialect by deployment, with a key or an Entra token (kind ``azure``)."""

from urllib.parse import quote

from penstock.providers.openai.adapter import OpenAIAdapter
from penstock.providers.spec import Bound

# The last dated version that is generally available; after it came the undated /openai/v1 (Microsoft Learn, 2026-11).
_API_VERSION = "2024-10-21"


def make(bound: Bound) -> OpenAIAdapter:
    """The adapter of one resource, whose endpoint is the base URL; a target's model is a deployment's name there.

    ``auth = "bearer"`` sends the secret as an Entra token, else it is an API key. ``api_version = "v1"`` calls the
    undated surface, which names the deployment in the body.
    """
    spec, secret = bound.spec, bound.credential.secret if bound.credential else None
    bearer = ("authorization", f"Bearer {secret}") if spec.auth == "bearer" else ("api-key", secret or "")
    adapter = AzureAdapter(
        bound.transport, api_key=secret, headers=((bearer,) if secret else ()) + spec.headers, quirks=spec.quirks
    )
    adapter.api_version = spec.api_version or _API_VERSION
    return adapter


class AzureAdapter(OpenAIAdapter):
    """One Azure OpenAI resource. The dated surface takes a deployment's chats at a path of its own."""

    api_version = _API_VERSION

    def path(self, model: str) -> str:
        """Where chats with a deployment go."""
        if self.api_version == "v1":
            return "/openai/v1/chat/completions"
        version = quote(self.api_version, safe="")
        return f"/openai/deployments/{quote(model, safe='')}/chat/completions?api-version={version}"
