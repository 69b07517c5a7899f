#!/bin/sh
# One plain request. Needs INFERENCE_URL and INFERENCE_KEY.
set -eu
curl --silent --show-error --fail-with-body "$INFERENCE_URL/v1/chat/completions" \
    -H "Authorization: Bearer $INFERENCE_KEY" \
    -d '{
          "model": "'"${INFERENCE_MODEL_ID:-smollm2-135m-instruct}"'",
          "max_tokens": 40,
          "messages": [{"role": "user", "content": "Name a colour of the sea."}]
        }'
