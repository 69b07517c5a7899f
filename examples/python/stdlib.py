"""One plain request with nothing but the standard library."""

import json
import os
import urllib.error
import urllib.request

body = {
    "model": os.environ.get("INFERENCE_MODEL_ID", "smollm2-135m-instruct"),
    "max_tokens": 40,
    "messages": [{"role": "user", "content": "Name a colour of the sea."}],
}
request = urllib.request.Request(
    os.environ["INFERENCE_URL"] + "/v1/chat/completions",
    data=json.dumps(body).encode(),
    headers={"Authorization": "Bearer " + os.environ["INFERENCE_KEY"], "Content-Type": "application/json"},
)
try:
    with urllib.request.urlopen(request, timeout=60) as response:
        answer = json.load(response)
except urllib.error.HTTPError as error:
    raise SystemExit(f"{error.code}: {json.load(error)['error']['message']}") from None
print(answer["choices"][0]["message"]["content"])
