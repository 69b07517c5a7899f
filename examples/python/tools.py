"""A tool call and its result: the model must call, our function answers, the model goes on from there."""

import json
import os

from openai import OpenAI
from openai.types.chat import ChatCompletionMessageParam, ChatCompletionToolParam

client = OpenAI(base_url=os.environ["INFERENCE_URL"] + "/v1", api_key=os.environ["INFERENCE_KEY"])
model = os.environ.get("INFERENCE_MODEL_ID", "smollm2-135m-instruct")
tools: list[ChatCompletionToolParam] = [
    {
        "type": "function",
        "function": {
            "name": "tide",
            "description": "The tide at a harbour now",
            "parameters": {
                "type": "object",
                "properties": {"harbour": {"enum": ["Brest", "Dover"]}},
                "required": ["harbour"],
                "additionalProperties": False,
            },
        },
    }
]
messages: list[ChatCompletionMessageParam] = [{"role": "user", "content": "How is the tide at Dover?"}]

asked = client.chat.completions.create(
    model=model, messages=messages, tools=tools, tool_choice="required", parallel_tool_calls=False, max_tokens=60
)
call = (asked.choices[0].message.tool_calls or [])[0]
assert call.type == "function"
harbour = json.loads(call.function.arguments)["harbour"]
print(f"The model called {call.function.name} for {harbour}.")

messages.append(
    {
        "role": "assistant",
        "tool_calls": [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.function.name, "arguments": call.function.arguments},
            }
        ],
    }
)
messages.append({"role": "tool", "tool_call_id": call.id, "content": "rising, 2.1 m"})
answer = client.chat.completions.create(model=model, messages=messages, tools=tools, tool_choice="none", max_tokens=40)
print(answer.choices[0].message.content)
