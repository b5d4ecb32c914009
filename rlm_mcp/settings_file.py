"""The configuration file of an operator, in TOML."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from rlm_mcp.errors import ConfigurationError


def read_toml(path: Path) -> dict[str, Any]:
    """Read the values that a configuration file sets, by the names of the settings.

    Raises:
        ConfigurationError: it cannot be read, or is not TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(
            f"The configuration file {str(path)!r} cannot be read: {error.strerror}.",
            fix="Give --config the path of a TOML file.",
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(
            f"The configuration file {str(path)!r} is not TOML: {error}.",
            fix="Write lines such as: root_model = 'NAME'.",
        ) from error
