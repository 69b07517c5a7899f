"""The OpenAI Node SDK against hosted models of other dialects: its own runner of tools, streamed, and thinking."""

import json
import os
import subprocess
from pathlib import Path

from tests.needs import require_program
from tests.providers.hosted import Host, Hosted
from tests.sdk.talk import CALL, CITIES, FINAL, QUESTION, THOUGHT, weather


def test_the_sdks_runner_calls_its_tools_and_answers(hosted: Hosted, host: Host, node_modules: Path) -> None:
    host.answer(CALL, FINAL, THOUGHT)
    env = {"BASE_URL": hosted.base_url, "INFERENCE_KEY": hosted.key, "MODEL": host.model, "QUESTION": QUESTION}
    done = subprocess.run(
        [require_program("node"), "hosted.mjs"],
        cwd=node_modules.parent,
        env=os.environ | env,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert seen["asked"] == list(CITIES)
    assert seen["said"] == FINAL.text
    assert seen["usage"]["prompt_tokens"] == CALL.usage[0] + FINAL.usage[0]
    assert seen["thought"] == {"text": THOUGHT.text, "thinking": THOUGHT.thinking}
    texts = json.dumps(host.vendor.request(host.exchanges[1].body)["texts"], ensure_ascii=False)
    assert all(weather(city) in texts for city in CITIES)
