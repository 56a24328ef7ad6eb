"""What a campaign is: configuration, ledger, round, selection, metrics. No Prefect, no MLflow."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.campaign import Campaign

__all__ = ["Campaign"]


def __getattr__(name: str) -> Any:
    # Late, because a campaign imports torch and reading a ledger does not need it.
    if name == "Campaign":
        from pipeline.campaign import Campaign

        return Campaign
    raise AttributeError(f"module `pipeline` has no attribute `{name}`")
