"""An answer that meets a JSON Schema, whatever the model would rather say."""

import json
import os

from openai import OpenAI

client = OpenAI(base_url=os.environ["INFERENCE_URL"] + "/v1", api_key=os.environ["INFERENCE_KEY"])
answer = client.chat.completions.create(
    model=os.environ.get("INFERENCE_MODEL_ID", "smollm2-135m-instruct"),
    messages=[{"role": "user", "content": "The ferry was late and cold."}],
    response_format={
        "type": "json_schema",
        "json_schema": {
            "name": "review",
            "strict": True,
            "schema": {
                "type": "object",
                "properties": {
                    "mood": {"enum": ["good", "bad"]},
                    "stars": {"type": "integer", "minimum": 1, "maximum": 5},
                },
                "required": ["mood", "stars"],
                "additionalProperties": False,
            },
        },
    },
    max_tokens=60,
)
review = json.loads(answer.choices[0].message.content or "")
print(f"mood: {review['mood']}, stars: {review['stars']}")
