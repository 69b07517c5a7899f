"""An entry of the Platform API as one flat row: our own columns, or those of the FinOps specification FOCUS."""

import json
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Literal

Kind = Literal["text", "count", "number", "flag", "time", "money", "json"]
Row = dict[str, Any]
Columns = dict[str, Kind]

_TOKENS = ("input_tokens", "cached_input_tokens", "cache_write_tokens", "output_tokens", "reasoning_tokens")
_SAME: Columns = {
    "asked": "text",
    "model": "text",
    "target": "text",
    "stand_in_id": "text",
    "stream": "flag",
    "outcome": "text",
    "cached_answer": "flag",
    "estimated": "flag",
}
_BILL: Columns = {
    "price_version": "text",
    "amount": "money",
    "currency": "text",
    "cost": "money",
    "cost_currency": "text",
    "queued_ms": "number",
    "first_token_ms": "number",
    "total_ms": "number",
    "attempts": "json",
    "raw_usage": "json",
    "hash": "text",
}
# Our own columns, in their order, and what is in them.
PLAIN: Columns = {
    "request_id": "text",
    "seq": "count",
    "admitted_at": "time",
    "settled_at": "time",
    "app_id": "text",
    "app": "text",
    "addon_id": "text",
    "attachment_id": "text",
    "key_id": "text",
    "key_prefix": "text",
    **_SAME,
    **dict.fromkeys(_TOKENS, "count"),
    **_BILL,
}
# Those of FOCUS 1.x that an inference bill has; x_ marks our own, as the specification asks.
FOCUS: Columns = {
    "BillingAccountId": "text",
    "BillingAccountName": "text",
    "SubAccountId": "text",
    "SubAccountName": "text",
    "BillingCurrency": "text",
    "BillingPeriodStart": "time",
    "BillingPeriodEnd": "time",
    "ChargePeriodStart": "time",
    "ChargePeriodEnd": "time",
    "ChargeCategory": "text",
    "ChargeClass": "text",
    "ChargeFrequency": "text",
    "ChargeDescription": "text",
    "BilledCost": "money",
    "EffectiveCost": "money",
    "ListCost": "money",
    "ContractedCost": "money",
    "ConsumedQuantity": "count",
    "ConsumedUnit": "text",
    "PricingCategory": "text",
    "PricingQuantity": "count",
    "PricingUnit": "text",
    "ProviderName": "text",
    "PublisherName": "text",
    "InvoiceIssuerName": "text",
    "ServiceCategory": "text",
    "ServiceName": "text",
    "SkuId": "text",
    "SkuPriceId": "text",
    "ResourceId": "text",
    "ResourceType": "text",
    "Tags": "json",
    "x_RequestId": "text",
    "x_InputTokens": "count",
    "x_CachedInputTokens": "count",
    "x_CacheWriteTokens": "count",
    "x_OutputTokens": "count",
    "x_ReasoningTokens": "count",
    "x_Estimated": "flag",
    "x_Outcome": "text",
    "x_Target": "text",
    "x_UpstreamCost": "money",
    "x_UpstreamCurrency": "text",
}
_SELLER = "Penstock"


def plain(entry: Row) -> Row:
    """The row in our own columns."""
    usage = entry["usage"]
    return {
        "request_id": entry["request_id"],
        "seq": entry["seq"],
        "admitted_at": entry["admitted_at"],
        "settled_at": entry["settled_at"],
        "app_id": entry["app"]["id"],
        "app": entry["app"]["name"],
        "addon_id": entry["addon"]["id"],
        "attachment_id": entry["attachment"]["id"],
        "key_id": entry["key"]["id"],
        "key_prefix": entry["key"]["prefix"],
        **{name: entry[name] for name in _SAME},
        **{name: usage[name] for name in _TOKENS},
        **{name: entry[name] for name in _BILL},
    }


def focus(entry: Row) -> Row:
    """The row in the columns of FOCUS: one usage charge for each request."""
    usage, admitted = entry["usage"], datetime.fromisoformat(entry["admitted_at"]).astimezone(UTC)
    begin = datetime(admitted.year, admitted.month, 1, tzinfo=UTC)
    end = datetime(admitted.year + admitted.month // 12, admitted.month % 12 + 1, 1, tzinfo=UTC)
    tokens = usage["input_tokens"] + usage["output_tokens"]
    app, provider = entry["app"], (entry["target"] or "").partition("/")[0]
    return {
        "BillingAccountId": "penstock",
        "BillingAccountName": _SELLER,
        "SubAccountId": app["id"],
        "SubAccountName": app["name"],
        "BillingCurrency": entry["currency"],
        "BillingPeriodStart": f"{begin:%Y-%m-%dT%H:%M:%SZ}",
        "BillingPeriodEnd": f"{end:%Y-%m-%dT%H:%M:%SZ}",
        "ChargePeriodStart": entry["admitted_at"],
        "ChargePeriodEnd": entry["settled_at"],
        "ChargeCategory": "Usage",
        "ChargeClass": None,
        "ChargeFrequency": "Usage-Based",
        "ChargeDescription": f"{tokens} tokens of {entry['model']}",
        **dict.fromkeys(("BilledCost", "EffectiveCost", "ListCost", "ContractedCost"), entry["amount"]),
        "ConsumedQuantity": tokens,
        "ConsumedUnit": "Tokens",
        "PricingCategory": "Standard",
        "PricingQuantity": tokens,
        "PricingUnit": "Tokens",
        "ProviderName": _SELLER,
        "PublisherName": provider or None,
        "InvoiceIssuerName": _SELLER,
        "ServiceCategory": "AI and Machine Learning",
        "ServiceName": "Managed inference",
        "SkuId": entry["model"],
        "SkuPriceId": entry["price_version"],
        "ResourceId": entry["addon"]["id"],
        "ResourceType": "Add-on",
        "Tags": {"app": app["name"], "key": entry["key"]["prefix"], "asked": entry["asked"]},
        "x_RequestId": entry["request_id"],
        "x_InputTokens": usage["input_tokens"],
        "x_CachedInputTokens": usage["cached_input_tokens"],
        "x_CacheWriteTokens": usage["cache_write_tokens"],
        "x_OutputTokens": usage["output_tokens"],
        "x_ReasoningTokens": usage["reasoning_tokens"],
        "x_Estimated": entry["estimated"],
        "x_Outcome": entry["outcome"],
        "x_Target": entry["target"],
        "x_UpstreamCost": entry["cost"],
        "x_UpstreamCurrency": entry["cost_currency"],
    }


def as_text(value: Any, kind: Kind) -> str:
    """A cell of a CSV file; nothing for what is not known."""
    if value is None:
        return ""
    if kind == "json":
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return str(value).lower() if kind == "flag" else str(value)


def as_value(value: Any, kind: Kind) -> Any:
    """A cell of a file with types: money as Decimal, times as datetime."""
    if value is None:
        return None
    if kind == "json":
        return as_text(value, kind)
    if kind == "time":
        return datetime.fromisoformat(value)
    if kind == "number":
        return float(value)
    return Decimal(value) if kind == "money" else value
