"""What the real Heroku CLI is asked to do, in order, and what must come of it: the table of docs/interop.md."""

from collections.abc import Callable
from dataclasses import dataclass, field

import httpx

URL = r"http://127\.0\.0\.1:\d+"
NOT_FOUND = r"Error ID: not_found"
INVALID = r"Error ID: invalid_params"


@dataclass(frozen=True)
class Stage:
    """Where a scene plays: two apps of its own, made before it, and the Platform API to look at afterwards."""

    app: str
    other: str
    api: httpx.Client

    def has(self, app: str) -> bool:
        """Whether there is an app of the name."""
        return self.api.get(f"/apps/{app}").status_code == 200

    def vars(self, app: str | None = None) -> dict[str, str]:
        """The config vars of the scene's app, or of another."""
        found: dict[str, str] = self.api.get(f"/apps/{app or self.app}/config-vars").json()
        return found

    def attachments(self, app: str | None = None) -> set[str]:
        """The names of the attachments on the scene's app, or on another."""
        return {row["name"] for row in self.api.get(f"/apps/{app or self.app}/addon-attachments").json()}

    def shared(self) -> set[str]:
        """Who the scene's app is shared with."""
        rows = self.api.get(f"/apps/{self.app}/collaborators").json()
        return {row["user"]["email"] for row in rows if row["role"] != "owner"}

    def addons(self) -> list[tuple[str, dict[str, str]]]:
        """(plan, options) of the add-ons that the scene's app owns."""
        rows = self.api.get(f"/apps/{self.app}/addons").json()
        return [(row["plan"]["name"].partition(":")[2], row["config"]) for row in rows]


State = Callable[[Stage], bool]


def anything(stage: Stage) -> bool:
    """No state in particular: the command changes none."""
    return True


@dataclass(frozen=True)
class Case:
    """One command line. APP and OTHER in it and in the patterns are the stage's apps.

    ``out`` and ``err`` are regular expressions found in stdout, and in stderr without its line breaks and bullets;
    ``then`` is true of the state afterwards.
    ``why`` explains in the table what does not work, or how it differs.
    """

    line: str
    out: str = ""
    err: str = ""
    code: int = 0
    then: State = field(default=anything)
    why: str = ""

    @property
    def of_plugin(self) -> bool:
        """Whether the command is the AI plugin's."""
        return self.line.startswith("ai:")


SCENES: dict[str, tuple[Case, ...]] = {
    "account": (
        Case("whoami", r"^operator@penstock\.local\n$"),
        Case("auth:token", r"^pst-[\w-]{43}\n$"),
        Case("addons:services", r"heroku-inference +Managed Inference and Agents +ga"),
        Case(
            "addons:plans heroku-inference",
            r"(?s)default +heroku-inference:standard.+heroku-inference:claude-4-5-sonnet",
        ),
        Case("addons:plans nope", code=2, err=NOT_FOUND),
    ),
    "apps": (
        Case(
            "create APP-new",
            r"/apps/APP-new \| https://\S+/APP-new\.git\n$",
            then=lambda at: at.has(f"{at.app}-new"),
        ),
        Case("create APP-new", code=2, err=rf"Name APP-new is already taken.+{INVALID}"),
        Case("create Not_A_Name", code=2, err=rf"Name must start with a letter.+{INVALID}"),
        Case(
            "create",
            r"/apps/(?P<made>[a-z]+-[a-z]+-\d+) \| https://\S+/(?P=made)\.git\n$",
            err=r"Creating app\.\.\. done",
        ),
        Case("apps", r"(?m)(?s)^APP$.+^APP-new$"),
        Case("apps:info -a APP-new", r"(?s)=== APP-new\n.+Owner: +operator@penstock\.local.+Region: +us"),
        Case("releases -a APP-new", r"v1 +Initial release +operator@penstock\.local"),
        Case("apps:info -a no-such-app", code=2, err=NOT_FOUND),
        Case("apps:destroy APP-new -c wrong", code=1, err=r"did not match", then=lambda at: at.has(f"{at.app}-new")),
        Case("apps:destroy APP-new -c APP-new", then=lambda at: not at.has(f"{at.app}-new")),
    ),
    "addons": (
        Case(
            "addons:create heroku-inference:standard -a APP --as INFERENCE --wait -- --region=eu",
            r"Created inference-[a-z]+-\d{5} as INFERENCE_URL, INFERENCE_KEY",
            err=r"Creating heroku-inference:standard on \S*APP\.\.\. metered",
            then=lambda at: (
                at.addons() == [("standard", {"region": "eu"})] and set(at.vars()) == {"INFERENCE_KEY", "INFERENCE_URL"}
            ),
        ),
        Case(
            "addons:create heroku-inference:claude-4-5-sonnet -a APP --as CHAT",
            r"as CHAT_URL, CHAT_KEY, CHAT_MODEL_ID",
            then=lambda at: at.vars().get("CHAT_MODEL_ID") == "claude-4-5-sonnet",
        ),
        Case(
            "addons:create heroku-inference:standard -a APP",
            r"as INFERENCE_[A-Z]+_URL",
            then=lambda at: len(at.attachments()) == 3,
        ),
        Case(
            "addons:create heroku-inference:nope -a APP",
            code=2,
            err=rf"add-on plan of.+{INVALID}",
            then=lambda at: len(at.attachments()) == 3,
        ),
        Case("addons:create heroku-inference:standard -a APP --as 1X", code=2, err="must start with a letter"),
        Case("addons:create heroku-inference:standard -a APP --as CHAT", code=2, err=INVALID),
        Case(
            "addons -a APP",
            r"(?s)heroku-inference \(inference-\S+\) +claude-4-5-sonnet +metered +metered +created.+as CHAT",
        ),
        Case("addons", r"APP +inference-\S+ +heroku-inference:standard +metered"),
        Case(
            "addons:info CHAT -a APP",
            r"(?s)Plan: +heroku-inference:claude-4-5-sonnet.+Attachments: +APP::CHAT.+Owning app: +APP",
        ),
        Case("addons:info NOPE -a APP", code=2, err=NOT_FOUND),
        Case(
            "addons:attach APP::CHAT -a OTHER --as TALK",
            err=r"Attaching.+to.+OTHER.+done",
            then=lambda at: (
                set(at.vars(at.other)) == {"TALK_KEY", "TALK_MODEL_ID", "TALK_URL"}
                and at.vars(at.other).get("TALK_KEY") != at.vars().get("CHAT_KEY")
            ),
        ),
        Case("addons:detach TALK -a OTHER", err=r"Detaching TALK.+done", then=lambda at: at.vars(at.other) == {}),
        Case("addons:detach TALK -a OTHER", code=2, err=NOT_FOUND),
        Case(
            "addons:destroy CHAT -a APP -c wrong",
            code=1,
            err=r"did not match",
            then=lambda at: "CHAT" in at.attachments(),
        ),
        Case(
            "addons:destroy CHAT -a APP -c APP",
            err=r"Destroying.+done",
            then=lambda at: "CHAT" not in at.attachments() and "CHAT_KEY" not in at.vars() and len(at.addons()) == 2,
        ),
    ),
    "config": (
        Case(
            "config:set ONE=1 TWO=two=2 -a APP",
            r"ONE: +1\nTWO: +two=2",
            err=r"Setting ONE, TWO.+done, v2",
            then=lambda at: at.vars() == {"ONE": "1", "TWO": "two=2"},
        ),
        Case("config:set 1=x -a APP", code=2, err=INVALID, then=lambda at: "1" not in at.vars()),
        Case("config -a APP", r"=== APP Config Vars\n\nONE: 1\nTWO: two=2\n"),
        Case("config -a APP --json", r'^\{\s+"ONE": "1",\s+"TWO": "two=2"\s+\}\n$'),
        Case("config -a APP -s", r"^ONE=1\nTWO='two=2'\n$"),
        Case("config:get TWO -a APP", r"^two=2\n$"),
        Case("config:get NOPE -a APP", r"^\n$"),
        Case("config:unset ONE -a APP", err=r"Unsetting ONE.+done, v3", then=lambda at: at.vars() == {"TWO": "two=2"}),
    ),
    "access": (
        Case("access -a APP", r"operator@penstock\.local +owner"),
        Case(
            "access:add guest@example.com -a APP",
            err=r"Adding.+done",
            then=lambda at: at.shared() == {"guest@example.com"},
        ),
        Case(
            "access:add nobody@example.com -a APP",
            code=2,
            err=r"no operator has the email",
            then=lambda at: len(at.shared()) == 1,
        ),
        Case("access -a APP", r"guest@example\.com +member"),
        Case("access:remove guest@example.com -a APP", err=r"Removing.+done", then=lambda at: at.shared() == set()),
        Case("access:remove guest@example.com -a APP", code=2, err=NOT_FOUND),
        Case("authorizations:create -d interop -e 3600 -S", r"^pst-[\w-]{43}\n$"),
        Case("authorizations", r"interop +[0-9a-f-]{36} +global"),
    ),
    "model": (
        Case("ai:models:list", r"(?s)standard +text-to-text.+claude-4-5-sonnet +text-to-text +us, eu"),
        Case(
            "ai:models:create claude-4-5-sonnet -a APP --as INFERENCE",
            r"Resource name: inference-\S+\nResource alias: INFERENCE\n",
            then=lambda at: set(at.vars()) == {"INFERENCE_KEY", "INFERENCE_MODEL_ID", "INFERENCE_URL"},
        ),
        Case(
            "ai:models:create nope -a APP",
            code=1,
            err=r"nope is an invalid model name",
            then=lambda at: len(at.addons()) == 1,
        ),
        Case(
            "ai:models:create claude-4-5-sonnet -a APP --as 1X",
            code=1,
            err=r"1X is an invalid alias",
            then=lambda at: len(at.addons()) == 1,
        ),
        Case("ai:models:info -a APP", r"(?s)Base Model ID: +claude-4-5-sonnet.+Model Alias: +INFERENCE.+Ready: +Yes"),
        Case("ai:models:info INFERENCE -a APP", r"(?s)Base Model ID: +claude-4-5-sonnet\n"),
        Case("ai:models:info NOPE -a APP", code=1, err=r"find a model resource called NOPE"),
        Case('ai:models:call INFERENCE -a APP -p Hello --opts {"max_tokens":5}', r"^\S[^\n]*\n"),
        Case(
            'ai:models:call INFERENCE -a APP -p Hello --opts {"max_tokens":5} --json',
            r'(?s)"model": "claude-4-5-sonnet".+"completion_tokens": 5',
        ),
        Case('ai:models:call INFERENCE -a APP -p Hello --opts {"nope":1}', code=2, err=r"Unknown parameter: 'nope'"),
        Case("ai:tools:list INFERENCE -a APP", r"No AI tools are currently available", why="there are no tools yet"),
        Case("ai:mcp INFERENCE -a APP", r"^" + URL + r"/mcp\n$", why="prints the address; nothing is served there yet"),
        Case(
            "ai:models:attach INFERENCE --source-app APP --target-app OTHER --as TALK",
            err=r"Attaching.+OTHER.+done",
            then=lambda at: at.vars(at.other).get("TALK_MODEL_ID") == "claude-4-5-sonnet",
        ),
        Case("ai:models:detach TALK -a OTHER", err=r"Detaching TALK.+done", then=lambda at: at.vars(at.other) == {}),
        Case(
            "ai:models:destroy INFERENCE -a APP -c wrong",
            code=1,
            err=r"did not match",
            then=lambda at: len(at.addons()) == 1,
        ),
        Case(
            "ai:models:destroy INFERENCE -a APP -c APP",
            err=r"Destroying.+done",
            then=lambda at: at.addons() == [] and at.vars() == {},
        ),
        Case("ai:models:call INFERENCE -a APP -p Hello", code=1, err=r"find a model resource called INFERENCE"),
    ),
    "standard plan": (
        Case(
            "addons:create heroku-inference:standard -a APP --as INFERENCE",
            then=lambda at: at.attachments() == {"INFERENCE"},
        ),
        Case(
            'ai:models:call INFERENCE -a APP -p Hello --opts {"max_tokens":5}',
            r"^\S[^\n]*\n",
            why="the plugin takes the plan's name for a model; Penstock answers `standard` with its default model",
        ),
        Case(
            "ai:models:call INFERENCE -a APP -p Hello --model claude-4-5-sonnet",
            code=1,
            err=r"Cannot use --model",
            why="refused by the plugin itself, before it calls anything",
        ),
        Case("ai:models:info -a APP", r"(?s)Base Model ID: +standard.+Model Alias: +INFERENCE"),
    ),
    "not here": (
        Case(
            "ai:models:create claude-4-5-sonnet -a APP --as INFERENCE",
            then=lambda at: at.attachments() == {"INFERENCE"},
        ),
        Case(
            "ai:agents:call INFERENCE -a APP -p Hello",
            r"^\n?$",
            why="agents are not served yet; the plugin shows no error",
        ),
        Case(
            "logs -a APP",
            code=2,
            err=NOT_FOUND,
            why="an app here runs nothing: no logs, dynos, builds, domains, databases",
        ),
    ),
}
