"""Every command by its name: where its code is, and the line that help shows. Code loads when the command runs."""

from typing import NamedTuple

PROGRAM = "penstock"
_ROOM = "penstock.cli.commands."


class Entry(NamedTuple):
    """One command: ``module:attribute`` under cli.commands, its summary, and the name it is an alias of."""

    target: str
    summary: str
    alias_of: str | None = None
    hidden: bool = False

    @property
    def module(self) -> str:
        """The full name of the module."""
        return _ROOM + self.target.partition(":")[0]

    @property
    def attribute(self) -> str:
        """The name of the click command inside the module."""
        return self.target.partition(":")[2]


COMMANDS: dict[str, Entry] = {
    "access": Entry("admin.access:list_access", "list who has access to an app"),
    "access:add": Entry("admin.access:add", "share an app with an operator"),
    "access:remove": Entry("admin.access:remove", "stop sharing an app with an operator"),
    "access:update": Entry("admin.access:update", "give a collaborator another role"),
    "addons": Entry("addons:list_addons", "list add-ons and attachments"),
    "addons:attach": Entry("attachments:attach", "attach an add-on to an app"),
    "addons:create": Entry("addons:create", "create an add-on"),
    "addons:destroy": Entry("addons:destroy", "destroy an add-on and revoke its keys"),
    "addons:detach": Entry("attachments:detach", "detach an add-on from an app and revoke the key"),
    "addons:info": Entry("addons:info", "show an add-on"),
    "addons:plans": Entry("addon_plans:plans", "list the plans of an add-on service"),
    "addons:services": Entry("addon_plans:services", "list the add-on services"),
    "ai:models:attach": Entry("attachments:model_attach", "attach a model resource to another app"),
    "ai:models:call": Entry("ai_call:call", "send one prompt to a model resource"),
    "ai:models:create": Entry("ai_models:create", "provision a model for an app"),
    "ai:models:destroy": Entry("ai_models:destroy", "destroy a model resource and revoke its keys"),
    "ai:models:detach": Entry("attachments:model_detach", "detach a model resource from an app"),
    "ai:models:info": Entry("ai_models:info", "show the model resources of an app"),
    "ai:models:list": Entry("ai_models:list_models", "list the models that can be provisioned"),
    "apps": Entry("apps:list_apps", "list your apps"),
    "apps:create": Entry("apps:create", "create an app"),
    "apps:destroy": Entry("apps:destroy", "destroy an app with all its add-ons"),
    "apps:info": Entry("apps:info", "show an app"),
    "audit": Entry("admin.audit:show", "show who did what"),
    "auth:login": Entry("auth:login", "log in with an email address and a token"),
    "auth:logout": Entry("auth:logout", "end the saved login"),
    "auth:token": Entry("auth:token", "print the token in use"),
    "auth:whoami": Entry("auth:whoami", "print who you are"),
    "backup": Entry("admin.backup:back_up", "write a backup of the database to a file, while servers run"),
    "check": Entry("upstreams.check:check", "validate the configuration, and try what it names"),
    "budgets": Entry("limits.budgets:list_budgets", "list budgets and what is spent of them"),
    "budgets:set": Entry("limits.budgets:set_budget", "set a budget of an app, key or model"),
    "budgets:unset": Entry("limits.budgets:unset", "remove a budget"),
    "chat": Entry("chat:chat", "talk with a model, streaming"),
    "completion": Entry("completion:completion", "print the shell completion script"),
    "config": Entry("config:list_config", "show an app's config vars"),
    "config:get": Entry("config:get", "print config vars by name"),
    "config:set": Entry("config:set_vars", "set config vars"),
    "config:unset": Entry("config:unset", "unset config vars"),
    "contents": Entry("admin.contents:show", "read the prompts and answers that are kept of an app"),
    "credentials": Entry("admin.credentials:list_credentials", "list the stored credentials of providers"),
    "credentials:remove": Entry("admin.credentials:remove", "remove the stored credential of a provider"),
    "credentials:set": Entry("admin.credentials:set_credential", "store the credential of a provider"),
    "db:check": Entry("admin.database:check", "say whether the database is sound"),
    "db:upgrade": Entry("admin.database:upgrade", "bring the database to this version's schema"),
    "db:copy": Entry("admin.backup:copy", "move everything to another, empty database"),
    "heroku": Entry("admin.heroku:heroku", "run the installed Heroku CLI against this installation"),
    "heroku:env": Entry("admin.heroku:env", "print shell exports that lead the Heroku CLI to this installation"),
    "heroku:proxy": Entry("admin.heroku:proxy_command", "run the proxy that heroku:env leads to"),
    "keys": Entry("admin.keys:list_keys", "list the keys of an app"),
    "keys:create": Entry("admin.keys:create", "make a key and print it"),
    "keys:revoke": Entry("admin.keys:revoke", "revoke a key, or all keys of an attachment"),
    "keys:rotate": Entry("admin.keys:rotate", "replace a key and print the new one"),
    "limits": Entry("limits.limits:list_limits", "list limits and where they come from"),
    "limits:set": Entry("limits.limits:set_limits", "set limits of an app, key or model"),
    "limits:unset": Entry("limits.limits:unset", "remove limits"),
    "ledger:prices": Entry("usage.upkeep:prices", "list the versions of prices that the ledger knows"),
    "ledger:reconcile": Entry("usage.reconcile:reconcile", "compare the ledger with a provider's own account"),
    "ledger:rerate": Entry("usage.upkeep:rerate", "say what a past period would have cost at other prices"),
    "ledger:verify": Entry("usage.upkeep:verify_ledger", "prove that the ledger is whole and its sums are right"),
    "models": Entry("upstreams.catalogue:list_catalogue", "list the catalogue: what serves each id, and its price"),
    "models:add": Entry("models:add", "register a GGUF file under an id"),
    "models:local": Entry("models:list_weights", "list the model weights on this machine"),
    "models:pull": Entry("models:pull", "fetch model weights"),
    "models:remove": Entry("models:remove", "remove model weights from this machine"),
    "operators": Entry("admin.operators:list_operators", "list the operators and their roles"),
    "operators:add": Entry("admin.operators:add", "make an operator and their first token"),
    "operators:remove": Entry("admin.operators:remove", "remove an operator and end their tokens"),
    "operators:update": Entry("admin.operators:update", "change an operator's role or email address"),
    "plugins": Entry("plugins:list_plugins", "list plugins (the AI commands are built in)"),
    "plugins:install": Entry("plugins:install", "accepted for compatibility: the AI commands are built in"),
    "policy": Entry("admin.policies:show", "show how an app is treated in queues, cached and kept"),
    "policy:set": Entry("admin.policies:change", "change an app's weight, reserve, cache, or kept content"),
    "providers": Entry("upstreams.providers:list_providers", "list the providers behind the models"),
    "providers:test": Entry("upstreams.providers:test", "try a provider with small requests"),
    "restore": Entry("admin.backup:restore", "replace the database by a backup"),
    "secrets:rotate": Entry("admin.secrets:rotate", "seal every secret under a new master key, while servers run"),
    "serve": Entry("serve:serve", "run the gateway, the control plane and the embedded model"),
    "settings": Entry("settings:show", "print the settings in effect"),
    "tokens": Entry("admin.operators:list_tokens", "list your tokens"),
    "tokens:create": Entry("admin.operators:create_token", "make a token"),
    "tokens:revoke": Entry("admin.operators:revoke_token", "revoke a token"),
    "usage": Entry("usage.show:show", "show what was used and what it costs"),
    "usage:export": Entry("usage.show:export", "write single requests to a file: CSV, JSON lines, Parquet"),
}

_ALIASES = {
    "ai:models": "ai:models:list",
    "apps:delete": "apps:destroy",
    "config:add": "config:set",
    "config:remove": "config:unset",
    "create": "apps:create",
    "destroy": "apps:destroy",
    "info": "apps:info",
    "login": "auth:login",
    "logout": "auth:logout",
    "whoami": "auth:whoami",
}

for _alias, _name in _ALIASES.items():
    COMMANDS[_alias] = COMMANDS[_name]._replace(alias_of=_name)
