"""The child of the driver ``openvino``: loads one model and serves it on a Unix socket until its parent is gone."""

import asyncio
import contextlib
import importlib
import os
import sys
from pathlib import Path
from typing import Any

from penstock.engine.bootstrap import Birth, Bootstrap
from penstock.engine.drivers import OPENVINO
from penstock.engine.gguf import read_header
from penstock.engine.openvino.batch import Batch, Tools
from penstock.engine.openvino.listener import serve

# Tokens of a block of the cache on a CPU (openvino-genai 2026.4.1).
_BLOCK = 32


def main() -> None:
    """Run the child. Never returns."""
    birth = Birth()
    tools = birth.load(_load)
    asyncio.run(_work(birth, tools))
    with contextlib.suppress(OSError):
        Path(birth.boot.socket).unlink()
    # Without destructors, as the engine may have requests.
    os._exit(0)


async def _work(birth: Birth, tools: Tools) -> None:
    await serve(Batch(tools), socket=birth.boot.socket, key=birth.boot.key, listens=birth.listens)


def _load(boot: Bootstrap) -> Tools:
    # The reader of GGUF in native code ends the process at a broken file: look at what we can see first.
    read_header(Path(boot.model))
    # A package that reports its use to others comes with OpenVINO, whose tools do without it.
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
    # Typed as anything, so that the types are the same where the extra is not installed.
    genai: Any = importlib.import_module(OPENVINO.package)
    plan = genai.SchedulerConfig()
    plan.max_num_seqs = boot.slots
    # A step reads at most a batch of prompts beside one token of every answer.
    plan.max_num_batched_tokens = boot.batch + boot.slots
    plan.dynamic_split_fuse = True
    # One more block for each answer, as the cache begins a block before it fills it.
    plan.num_kv_blocks = boot.slots * (-(-boot.context // _BLOCK) + 1)
    plan.enable_prefix_caching = True
    properties: dict[str, Any] = {"INFERENCE_NUM_THREADS": boot.thread_count}
    pipeline = genai.ContinuousBatchingPipeline(boot.model, plan, "CPU", properties)
    tokenizer = pipeline.get_tokenizer()
    if not tokenizer.chat_template:
        raise ValueError("the weights hold no chat template")
    return Tools(genai, pipeline, tokenizer, boot.context, boot.slots)


if __name__ == "__main__":
    main()
