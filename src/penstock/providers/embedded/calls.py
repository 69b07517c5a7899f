"""Cuts the text of constrained tool calls into wire deltas while it streams.

The grammar makes every call ``<tool_call>{"name":NAME,"arguments":OBJECT}</tool_call>``, so once a call's head is
complete its arguments can be passed on as they come, by counting brackets outside of strings.
"""

import re
import secrets

import msgspec

from penstock.providers.wire_out import Call, Delta, Function

# The closing of the call before, if any, then the opening of the next one up to its arguments.
_HEAD = re.compile(r'(?:\}</tool_call>)?\s*<tool_call>\s*\{"name":("(?:[^"\\]|\\.)*"),"arguments":(?=\{)')


class CallScanner:
    """Turns text into tool call deltas. ``calls`` counts the calls that have begun."""

    def __init__(self, begun: str = "") -> None:
        self.calls = 0
        self._text = begun
        self._depth = 0
        self._in_string = False
        self._escaped = False

    def feed(self, text: str) -> list[Delta]:
        """The deltas that this text completes."""
        self._text += text
        deltas: list[Delta] = []
        while self._text and (self._depth > 0 or self._begin(deltas)):
            function = Function(arguments=self._arguments())
            deltas.append(Delta(tool_calls=[Call(index=self.calls - 1, function=function)]))
        return deltas

    def _begin(self, deltas: list[Delta]) -> bool:
        head = _HEAD.match(self._text)
        if head is None:
            return False
        self._text = self._text[head.end() :]
        function = Function(name=msgspec.json.decode(head[1], type=str), arguments="")
        call = Call(index=self.calls, id=f"call_{secrets.token_hex(12)}", type="function", function=function)
        self.calls += 1
        deltas.append(Delta(tool_calls=[call]))
        return True

    def _arguments(self) -> str:
        """Characters of the arguments up to their closing brace or the end of what is there."""
        for at, character in enumerate(self._text):
            if self._escaped:
                self._escaped = False
            elif self._in_string:
                self._escaped = character == "\\"
                self._in_string = character != '"'
            elif character == '"':
                self._in_string = True
            elif character in "{[":
                self._depth += 1
            elif character in "}]":
                self._depth -= 1
                if self._depth == 0:
                    return self._taken(at + 1)
        return self._taken(len(self._text))

    def _taken(self, size: int) -> str:
        fragment, self._text = self._text[:size], self._text[size:]
        return fragment
