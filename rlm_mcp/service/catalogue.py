"""The models that the settings name."""

from __future__ import annotations

from rlm_mcp.engine.models.http_provider import OPENAI_BASE_URL, Provider
from rlm_mcp.engine.models.named import Catalogue
from rlm_mcp.settings import Settings, environment_of_commands, keys_of_models


def catalogue_of(settings: Settings) -> Catalogue:
    """Gather the default endpoint, the tables and what callers may choose.

    Raises:
        ConfigurationError: the variable of a key is not set.
    """
    key = settings.api_key.get_secret_value() if settings.api_key else ""
    configured = (settings.root_model, settings.sub_model)
    return Catalogue(
        Provider(settings.base_url or OPENAI_BASE_URL, key),
        settings.models,
        keys_of_models(settings),
        settings.allowed_models,
        tuple(name for name in configured if name),
        environment_of_commands(),
        settings.root_context_tokens,
    )
