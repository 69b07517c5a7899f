"""The driver ``openvino``: OpenVINO GenAI's continuous batching behind a listener of our own."""
