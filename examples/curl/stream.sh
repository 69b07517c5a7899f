#!/bin/sh
# The event stream as it comes: one `data:` line per piece, the token counts, then `data: [DONE]`.
set -eu
curl --silent --show-error --no-buffer --fail-with-body "$INFERENCE_URL/v1/chat/completions" \
    -H "Authorization: Bearer $INFERENCE_KEY" \
    -d '{
          "model": "'"${INFERENCE_MODEL_ID:-smollm2-135m-instruct}"'",
          "max_tokens": 40,
          "stream": true,
          "stream_options": {"include_usage": true},
          "messages": [{"role": "user", "content": "Name a colour of the sea."}]
        }'
