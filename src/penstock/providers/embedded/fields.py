"""What the embedded engine makes of each parameter."""

from penstock.providers.translation.fields import Field, FieldTable, Handling

_P, _T, _I = Handling.PASSED, Handling.TRANSLATED, Handling.IGNORED

FIELDS: FieldTable = {
    "max_tokens": Field(_T),
    "max_completion_tokens": Field(_T),
    "temperature": Field(_P, "0.8 when absent"),
    "top_p": Field(_P, "0.95 when absent"),
    "top_k": Field(_P, "40 when absent"),
    "min_p": Field(_P, "0.05 when absent"),
    "stop": Field(_T, "ignored, and named, where a tool call is forced"),
    "seed": Field(_T, "32 bits; each further choice has the next seed"),
    "n": Field(_T, "at most 16"),
    "presence_penalty": Field(_P),
    "frequency_penalty": Field(_P),
    "logprobs": Field(_T),
    "top_logprobs": Field(_T),
    "logit_bias": Field(_T, "by token ids of the local model"),
    "stream_options": Field(_T),
    "response_format": Field(_T, "a grammar: see structured-output.md"),
    "tools": Field(_T, "a grammar: see structured-output.md"),
    "tool_choice": Field(_T),
    "parallel_tool_calls": Field(_T),
    "reasoning_effort": Field(_I),
    "extended_thinking": Field(_I),
    "modalities": Field(_I, "text only"),
    "user": Field(_I),
    "metadata": Field(_I),
    "store": Field(_I),
    "prediction": Field(_I),
    "service_tier": Field(_I),
    "safety_identifier": Field(_I),
    "prompt_cache_key": Field(_I, "prompts are cached by themselves"),
    "audio": Field(_I),
    "verbosity": Field(_I),
}
