"""Writes docs/settings.md, errors.md, interop.md and fields.md from settings, errors, interop cases and adapters.

Run it with `make docs`; a house test fails when a page is not what this prints.
"""

import json
import sys
import types
import typing
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import msgspec

from penstock.domain.errors import CODES
from penstock.settings.load import every_setting
from penstock.settings.tree import BudgetDefault, LimitDefault, ModelRow, PriceRow, ProviderRow, TargetRow

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"

MEANING = {
    "home": "Folder of the database, journal, weights and tokens.",
    "gateway.host": "Address of the data plane. Loopback by default: see docs/operations.md before you open it.",
    "gateway.port": "Port of the data plane. 0 picks a free one.",
    "gateway.public_url": "What apps get as `INFERENCE_URL`; scheme and host, no path. Default: the listener's address.",
    "gateway.workers": "Gateway processes that share the port.",
    "gateway.max_body_bytes": "Largest request body; more is 413 `body_too_large`.",
    "gateway.max_header_bytes": "Largest request head; more is 431 `header_too_large`. Both planes.",
    "gateway.header_timeout_s": "A request's head must be complete within this. Both planes.",
    "gateway.body_timeout_s": "A request's body must be complete within this. Both planes; 30 s at most on the control plane.",
    "gateway.write_timeout_s": "A client that reads nothing of its answer for this long is cut off. Both planes.",
    "gateway.keep_alive_s": "An idle client connection is closed after this. Both planes.",
    "gateway.snapshot_poll_s": "How often a worker looks for changed keys; bounds how long a revoked key still works.",
    "gateway.route_headers": "Whether answers say by `Penstock-Target` and `Penstock-Attempts` what served them.",
    "control.host": "Address of the Platform API. Whoever reaches it with an owner's token owns every app.",
    "control.port": "Port of the Platform API. 0 picks a free one.",
    "control.url": "Where the CLI finds the Platform API. Default: the running server's own, from its ready file.",
    "control.token": "The token that the CLI sends. Default: `HEROKU_API_KEY`, a saved login, the home's operator token.",
    "control.operator_email": "Who the first operator is, as `penstock auth:whoami` shows.",
    "control.trusted_proxies": "Proxies, by address or CIDR block, whose `X-Forwarded-For` says where a sign-in comes from.",
    "engine.enabled": "Whether the embedded model runs.",
    "engine.driver": "What runs the model; `auto` is `llamacpp`. `openvino` needs `penstock[openvino]`: see [engine.md](engine.md#drivers).",
    "engine.model": "The local model that the engine loads; `penstock models:local` shows those that are there.",
    "engine.slots": "Answers that the engine works on at once; more requests wait in its queue.",
    "engine.context": "Tokens of context for each slot. Memory grows with slots times context.",
    "engine.batch": "Prompt tokens read in one step; smaller notices a hang-up sooner, larger reads long prompts faster.",
    "engine.threads": "CPU threads of the engine. 0 leaves the choice to it.",
    "upstream.connect_timeout_s": "Bound on reaching an upstream, TLS included.",
    "upstream.first_byte_timeout_s": "Bound on the wait for an upstream's first byte of answer.",
    "upstream.idle_timeout_s": "Bound on silence inside an answer.",
    "upstream.max_connections": "Connections to one upstream, per worker.",
    "upstream.max_answer_bytes": "Largest answer taken from an upstream.",
    "upstream.first_token_timeout_s": "Bound on the wait for the first token of a stream, from the request on. Default: none of its own.",
    "upstream.total_timeout_s": "Bound on one whole answer. Default: none.",
    "upstream.max_image_bytes": "Largest image fetched for an upstream that takes no image addresses.",
    "upstream.image_timeout_s": "Bound on fetching one image, redirects included.",
    "upstream.image_networks": "Private networks, by CIDR block, from which images may be fetched all the same.",
    "upstream.breaker_min_calls": "A target rests when half of its recent calls failed, and they were at least this many (docs/routing.md). A large number turns that off.",
    "upstream.breaker_rest_s": "How long a target rests at first; twice as long after every probe that fails, at most a minute or this.",
    "journal.fsync_s": "How often the journal is forced to disk: what a power cut can take. A killed process loses nothing.",
    "journal.rotate_bytes": "A journal file is closed and a new one begun at this size.",
    "limits.heroku_defaults": "Whether each add-on has the requests and tokens per minute of Heroku's plans, for the built-in models that have them (docs/limits.md).",
    "limits.on_outage": "What happens to requests under a limit when the database does not answer and the worker's lease is used up: `refuse` (503 `limits_unavailable`) keeps limits exact, `admit` keeps serving.",
    "limits.lease_s": "For how long a worker may use its share of a limit without telling the database. A dead worker's share is free again this long, and for rates a window, after its last word.",
    "limits.money_lease_s": "After how long the money that a dead worker holds is free again, where its journal was not read before that.",
    "limits.assumed_output_tokens": "Output tokens for which a budget holds money where neither the request nor the model bounds them.",
    "ledger.ship_s": "How often the journal is brought into the ledger.",
    "ledger.retention_days": "How long single entries are kept; their daily sums stay.",
    "idempotency.window_s": "How long a repeated `Idempotency-Key` gets the first answer again.",
    "idempotency.detached_s": "How long an upstream is kept running for a client with an `Idempotency-Key` that has gone.",
    "idempotency.max_answer_bytes": "Largest answer that is kept for a repeat; a larger one is given once.",
    "cache.max_ttl_s": "The longest time for which an app may have answers cached.",
    "cache.max_answer_bytes": "Largest answer that is cached.",
    "cache.price_percent": "What an answer out of the cache costs, in percent of its price.",
    "secrets.master_key_file": "File of the master keys, one of 64 hex digits a line. Default: `master.key` under the home.",
    "secrets.master_key": "The master key itself, 64 hex digits, instead of a file. Set it in the environment only.",
    "secrets.old_master_key": "Opens what is still sealed under the key before; for `penstock secrets:rotate`.",
    "database.url": "The store: `postgresql://user:password@host/database`, or `sqlite:////data/penstock.db`. Default: `penstock.db` under the home.",
    "serve.mode": "`development` serves models without a credential by the embedded stand-in; `production` refuses them.",
    "serve.drain_s": "After SIGTERM, open answers may take this long.",
    "serve.ready_file": "Also write the ready file here. It always stands in `run/ready.json` under the home.",
    "log.level": "Least severe message written to stderr.",
}

# By row and field; a bound of a row without a word here is the setting of [upstream] for this row alone.
ROW_MEANING = {
    "provider.name": "How targets refer to it; that of a built-in provider changes it.",
    "provider.profile": "The built-in provider that gives what the row leaves out (providers.md).",
    "provider.kind": "The dialect: `openai`, `azure`, `anthropic`, `gemini`, `bedrock` or `any-llm`. Default: the profile's, else `openai`.",
    "provider.base_url": "Where its calls go; which path belongs in it: providers.md.",
    "provider.api_key_env": "The name of the environment variable that holds its key.",
    "provider.api_key_file": "The file that holds its key, on one line.",
    "provider.api_key_stored": "Its key is in the store: `penstock credentials:set NAME`.",
    "provider.auth": "How the key is sent, for `azure` and `anthropic`: `key` in the vendor's own header (default), `bearer` as `Authorization: Bearer`.",
    "provider.region": "AWS region, for `bedrock`. Default: that of the environment, else `us-east-1`.",
    "provider.aws_profile": "Profile of AWS's own tools, for `bedrock`.",
    "provider.api_version": "For `azure`: a dated version, or `v1`.",
    "provider.headers": "Sent with every call. No secrets.",
    "provider.proxy": "`http://[user:password@]host:port`.",
    "provider.ca_file": "Authorities (PEM) that may vouch for it, in place of the system's.",
    "provider.max_concurrent": "Calls at once; more wait in its queue (routing.md). Default: no bound.",
    "provider.max_queue": "How many calls wait; more are 429 `upstream_busy`.",
    "provider.queue_timeout_s": "How long one waits.",
    "provider.library_provider": "For `any-llm`: what that library calls the provider. Default: `name`.",
    "model.id": "What clients ask for. `standard` is taken.",
    "model.targets": "In the order in which they are tried.",
    "model.owner": "`owned_by` in `GET /v1/models`.",
    "model.aliases": "More names for it.",
    "model.context_window": "Tokens. Default: the widest of its targets', where all are known.",
    "model.max_output": "Tokens, for `GET /v1/models`.",
    "model.input": "What it takes, for `GET /v1/models`; nothing is refused by it.",
    "model.capabilities": "For `GET /v1/models`, any words; `check --live` finds `streaming`, `tools`, `json_schema`, `vision` and `logprobs`. Nothing is refused by it.",
    "model.price": "Of a million tokens. Default: the price data's for the first target that has one.",
    "model.stand_in": "Whether the embedded model answers in development while no target has a credential.",
    "model.strategy": "How targets are chosen: in order, by `weight`, fewest open calls, quickest first token, same beginning of the prompt (routing.md).",
    "model.max_attempts": "Upstream calls of one request.",
    "model.hedge": "Whether the next target starts too when a first token is late (routing.md).",
    "model.hedge_share": "The share of requests that may.",
    "limit.scope": "Of what each may do so much: `key`, `attachment`, `addon`, `app` or `model`.",
    "limit.model": "The model that it is about. Default: all together.",
    "limit.requests_per_minute": "In every sliding window of 60 s.",
    "limit.tokens_per_minute": "Input and output together, in every sliding window of 60 s.",
    "limit.concurrent_requests": "Requests open at once.",
    "limit.max_tokens": "Output tokens of one request.",
    "budget.scope": "Of what each may spend so much.",
    "budget.period": "By the calendar, in UTC; weeks begin on Monday.",
    "budget.amount": 'Money of each period, at most 1000000000, such as `"12.50"`.',
    "budget.currency": "Spend in another currency does not count.",
    "budget.model": "The model that it is about. Default: all together.",
    "budget.alerts": "Percentages at which it is told that so much is spent.",
    "model.targets.provider": "A `[[provider]]` row or a built-in one.",
    "model.targets.model": "The id that the provider knows.",
    "model.targets.weight": "Its share under the strategy `weighted`.",
    "model.targets.context_window": "Tokens. Default: the model's, else the price data's.",
}

SETTINGS_HEAD = """# Settings

Every setting has one name. A flag of `penstock serve` wins over the environment, the environment over
`penstock.toml`, the file over the default. They are read at the start; providers, models, `upstream.*`, and the
rows `[[limit]]` and `[[budget]]` also [while it runs](providers.md#reload). An unknown name or a bad value stops
the start with one line that says which, and for the file where: `penstock.toml:7: ...`.

The file is the one that `PENSTOCK_CONFIG` names, else `penstock.toml` in the working folder, else in the home. A setting
`section.name` is written there as `name = value` under `[section]`; `home` stands at the top.
`penstock serve --help` lists the settings that have a flag.

| setting | environment | default | value |
|---|---|---|---|
"""

ROWS_HEAD = """
## Rows

Four lists can only be given in the file, which is read again when it changes. Secrets never stand in it: a provider names the
environment variable or the file that holds its key ([providers.md](providers.md)).

```toml
[[provider]]
name = "lab"                              # how targets refer to it
kind = "openai"                           # the dialect it speaks
base_url = "http://127.0.0.1:9000/v1"
api_key_env = "LAB_API_KEY"               # optional

[[model]]
id = "house-model"                        # replaces a built-in catalogue entry of the same id
targets = [{ provider = "lab", model = "the-upstreams-own-id" }]
aliases = ["house"]
context_window = 32768
```

| row | field | default | value |
|---|---|---|---|
"""

OTHER = """
## Read outside the tree

| environment | meaning |
|---|---|
| `PENSTOCK_CONFIG` | path of the configuration file |
| `PENSTOCK_HEROKU_CLI` | the Heroku CLI that `penstock heroku` runs; default: `heroku` on `PATH` |
| `PENSTOCK_DEBUG` | 1: the CLI shows where an unexpected error came from |
| `PENSTOCK_REQUIRE_ALL` | 1, in the tests: a missing Node, Ruby or `../shared` fails instead of skipping |
| `PENSTOCK_SOAK` | 1, in the tests: full counts, which take hours (`make soak`) |
"""

ERRORS_HEAD = """# Error codes of the data plane

The `code` is stable and meant for programs; the `message` is for people and may change. Each code has one HTTP status
and one `type`.

```json
{"error": {"message": "...", "type": "invalid_request_error", "code": "unknown_parameter", "param": "top_q"}, "message": "..."}
```

`param` is the request field at fault, or null. The message stands at the top level once more because the Heroku CLI
prints it from there. Every answer carries `x-request-id`. A failure after the first byte of a stream is a last
`data: {"error": ...}` event of the same shape, and no `[DONE]` follows it.

| code | status | type | what to do |
|---|---|---|---|
"""

INTEROP_HEAD = """# The real Heroku CLI

The CLI of npm, unmodified, and its AI plugin work against Penstock. `penstock heroku` runs the one that is installed, with
all that it reads from its environment leading to this installation ([the tests](#what-works) run it as these lines do):

```sh
npm install --global heroku
heroku plugins:install @heroku/plugin-ai
penstock heroku create example-app
penstock heroku ai:models:create -a example-app claude-4-5-sonnet --as INFERENCE
penstock heroku ai:models:call INFERENCE -a example-app -p "Why is the sea blue?"
```

Address and token are found as every `penstock` command finds them ([cli.md](cli.md#how-it-finds-the-server)). Terminal,
exit code and signals are the CLI's own. `--cli PATH` or `PENSTOCK_HEROKU_CLI` names another CLI than `heroku` on `PATH`.

The plugin calls inference hosts by TLS on port 443 only, whatever `INFERENCE_URL` says. So the command carries a proxy
on loopback, for as long as it runs, that plays those hosts and this installation's gateway with certificates of a private
authority, and pipes to the gateway. It refuses every other destination, which is then named on stderr: no token, prompt
or telemetry goes elsewhere by it. The authority stands in `interop/` under `PENSTOCK_HOME`: `ca.pem`, and `ca.key` with
mode 0600. It is valid for a year, replaced in its last month, and trusted by that one process alone.

The CLI writes a credential helper into the global git configuration. Here that is `interop/gitconfig`, which
includes your own.

## In your shell

```sh
penstock heroku:proxy &
eval "$(penstock heroku:env)"
heroku ai:models:list
```

`heroku:env` prints the same variables as exports. Without the proxy it refuses, because the plugin would then send your
token to Heroku. Start the proxy again when the gateway's address changes. The exports concern the whole shell:
other programs in it use the proxy too, and are refused, and `HEROKU_API_KEY` is your token.

## Login

`penstock heroku login -i` asks for the email address and, as password, an operator token, and writes `~/.netrc` as the CLI
does; `heroku logout` ends that login. The wrapper needs no login of the CLI's own. The login in a browser (`login` without
`-i`) is not there.

## A control plane elsewhere

With `PENSTOCK_CONTROL_URL=https://...` the same commands work. Set `PENSTOCK_GATEWAY_PUBLIC_URL` to the gateway's URL as well
for `ai:models:list`, `info`, `call` and `ai:tools:list`. `login` works with a control plane on loopback only.

## What works

"""

INTEROP_TAIL = """
Left to the CLI itself: `plugins:install` and `update` need the npm registry, so run them without penstock. Whatever concerns
dynos, builds, domains, pipelines or databases is answered by 404. A plugin 2.x is not on the npm registry yet; it has not
been tried.
"""


def interop_page() -> str:
    """The text of docs/interop.md, from the cases that tests/interop runs."""
    from tests.interop.cases import SCENES  # noqa: PLC0415 - run as a script, this file finds it only by then

    package = json.loads((ROOT / "tests" / "interop" / "package.json").read_text(encoding="utf-8"))
    cli, plugin = (f"{name} {package['dependencies'][name]}" for name in ("heroku", "@heroku/plugin-ai"))
    rows = [
        f"| `heroku {case.line}` | {plugin if case.of_plugin else cli} | {case.code} | {case.why or ('refused with a message' if case.code else 'works')} |"
        for cases in SCENES.values()
        for case in cases
    ]
    said = "Each line is run by a test, in this order, with that exit code; output and the state afterwards are checked too.\n\n"
    return (
        INTEROP_HEAD
        + said
        + "| command | package | exit | result |\n|---|---|---|---|\n"
        + "\n".join(dict.fromkeys(rows))
        + "\n"
        + INTEROP_TAIL
    )


_ROWS = (
    ("provider", ProviderRow),
    ("model", ModelRow),
    ("model.targets", TargetRow),
    ("model.price", PriceRow),
    ("limit", LimitDefault),
    ("budget", BudgetDefault),
)


def settings_page() -> str:
    """The text of docs/settings.md. Raises KeyError for a setting without a meaning above."""
    rows = [
        f"| `{s.path}` | `{s.env}` | {_default(s.path, s.default)} | {_values(s.annotation)} {MEANING[s.path]} |"
        for s in every_setting()
    ]
    fields = [
        f"| `[[{name}]]` | `{field.name}` | {_row_default(field)} | {_row_values(name, field)} |"
        for name, row in _ROWS
        for field in msgspec.structs.fields(row)
    ]
    return SETTINGS_HEAD + "\n".join(rows) + "\n" + ROWS_HEAD + "\n".join(fields) + "\n" + OTHER


def _row_values(row: str, field: msgspec.structs.FieldInfo) -> str:
    return f"{_values(field.type)} {ROW_MEANING.get(f'{row}.{field.name}', '')}".rstrip()


def errors_page() -> str:
    """The text of docs/errors.md."""
    rows = [f"| `{code}` | {row.status} | `{row.type}` | {row.remedy} |" for code, row in CODES.items()]
    return ERRORS_HEAD + "\n".join(rows) + "\n"


def fields_page() -> str:
    """The text of docs/fields.md."""
    from scripts.fields_page import fields_page as page  # noqa: PLC0415 - run as a script, this file finds it only by then

    return page()


PAGES = {"settings.md": settings_page, "errors.md": errors_page, "interop.md": interop_page, "fields.md": fields_page}


def _default(path: str, default: Any) -> str:
    if path == "home":
        return "the platform's data folder"
    return "none" if default in (None, ()) else f"`{str(default).lower() if isinstance(default, bool) else default}`"


def _row_default(field: msgspec.structs.FieldInfo) -> str:
    if field.required:
        return "required"
    default = field.default
    if default is msgspec.NODEFAULT or default in (None, ()):
        return "none"
    return f"`{str(default).lower() if isinstance(default, bool) else default}`"


def _values(annotation: Any) -> str:
    origin = get_origin(annotation)
    if origin is Annotated:
        base, *metas = get_args(annotation)
        return f"{_values(base)[:-1]}{''.join(_bounds(meta) for meta in metas)}."
    if origin is Literal:
        return " or ".join(f"`{value}`" for value in get_args(annotation)) + "."
    if origin in (typing.Union, types.UnionType):
        kinds = [_values(arg)[:-1] for arg in get_args(annotation) if arg is not type(None)]
        return f"{kinds[0]}{''.join(f' or {kind.lower()}' for kind in kinds[1:])}."
    if origin is tuple:
        inner = get_args(annotation)[0]
        if get_origin(inner) is Literal:
            return f"List of {_values(inner)}"
        if get_origin(inner) is Annotated and get_args(inner)[0] is int:
            return f"List of whole numbers{_values(inner).removeprefix('Integer')}"
        return "List of rows, below." if inner is TargetRow else "List of texts."
    if origin is dict:
        return "Table of texts."
    if annotation is PriceRow:
        return "A row, below."
    return {int: "Integer.", float: "Number.", str: "Text.", bool: "`true` or `false`."}[annotation]


def _bounds(meta: msgspec.Meta) -> str:
    if meta.ge is not None and meta.le is not None:
        return f" {meta.ge} to {meta.le}"
    if meta.ge is not None:
        return f", at least {meta.ge}"
    return f" over {meta.gt}, at most {meta.le}" if meta.gt is not None else ""


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    for page, text in PAGES.items():
        (DOCS / page).write_text(text(), encoding="utf-8")
