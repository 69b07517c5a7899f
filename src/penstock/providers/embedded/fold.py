"""Folds the parts of one choice into the message of a plain answer."""

from msgspec import UNSET

from penstock.domain.chat import Json
from penstock.providers.embedded.choice import Part
from penstock.providers.wire_out import AnswerMessage, Call, Choice, Delta, Finish, Function


class Fold:
    """Collects one choice."""

    def __init__(self) -> None:
        self._texts: list[str] = []
        self._calls: list[tuple[str, str, list[str]]] = []
        self._entries: list[Json] = []
        self._has_logprobs = False
        self._finish: Finish = "stop"

    def add(self, part: Part) -> None:
        """Take the next part."""
        for delta in part.deltas:
            self._add_delta(delta)
        if part.logprobs is not UNSET:
            self._has_logprobs = True
            self._entries += part.logprobs["content"]
        if part.finish is not None:
            self._finish = part.finish

    def choice(self, index: int) -> Choice:
        """The choice as it goes to the client; content is null when there is nothing but calls."""
        text = "".join(self._texts)
        calls = [
            Call(id=identity, type="function", function=Function(name=name, arguments="".join(fragments)))
            for identity, name, fragments in self._calls
        ]
        message = AnswerMessage(
            role="assistant",
            content=None if calls and not text else text,
            refusal=None,
            tool_calls=calls or UNSET,
        )
        logprobs = {"content": self._entries, "refusal": None} if self._has_logprobs else UNSET
        return Choice(index, message, logprobs, self._finish)

    def _add_delta(self, delta: Delta) -> None:
        if isinstance(delta.content, str):
            self._texts.append(delta.content)
        if isinstance(delta.tool_calls, list):
            for call in delta.tool_calls:
                function = call.function if isinstance(call.function, Function) else Function()
                if isinstance(call.id, str):
                    name = function.name if isinstance(function.name, str) else ""
                    self._calls.append((call.id, name, []))
                if isinstance(function.arguments, str):
                    self._calls[-1][2].append(function.arguments)
