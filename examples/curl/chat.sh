#!/bin/sh
# One plain request. Needs INFERENCE_URL, INFERENCE_KEY and INFERENCE_MODEL_ID.
set -eu
curl --silent --show-error --fail-with-body "$INFERENCE_URL/v1/chat/completions" \
    -H "Authorization: Bearer $INFERENCE_KEY" \
    -d '{
          "model": "'"$INFERENCE_MODEL_ID"'",
          "max_tokens": 40,
          "messages": [{"role": "user", "content": "Name a colour of the sea."}]
        }'
