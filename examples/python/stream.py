"""A streamed answer, printed as it comes, and what it took."""

import os

from openai import OpenAI

client = OpenAI(base_url=os.environ["INFERENCE_URL"] + "/v1", api_key=os.environ["INFERENCE_KEY"])
stream = client.chat.completions.create(
    model=os.environ.get("INFERENCE_MODEL_ID", "smollm2-135m-instruct"),
    messages=[{"role": "user", "content": "Name a colour of the sea."}],
    max_tokens=40,
    stream=True,
    stream_options={"include_usage": True},
)
for chunk in stream:
    if chunk.choices:
        print(chunk.choices[0].delta.content or "", end="", flush=True)
    if chunk.usage:
        print(f"\n({chunk.usage.prompt_tokens} tokens in, {chunk.usage.completion_tokens} out)")
