"""How the package is laid out: layers, boundaries, homes of foreign libraries, sizes."""

from __future__ import annotations

import re
import sys

import pytest

from tests.layout import (
    PACKAGE,
    ROOT,
    files_of_a_call,
    fullest_folder,
    imports,
    long_functions,
    longest_chain,
    modules,
)

# Each layer may import from those below it, and from itself; what stands on one line never meets.
FLOORS: tuple[tuple[str, ...], ...] = (
    ("__main__",),
    ("cli",),
    ("server", "testing"),
    ("service",),
    ("settings",),
    ("refused_settings", "settings_file"),
    ("engine", "store"),
    ("sandbox",),
    ("events",),
    ("values", "text", "cursors", "bearer_tokens"),
    ("errors", "__init__"),
)
HOMES: dict[str, str | tuple[str, ...]] = {
    "mcp": "server",
    "mcp_types": "server",
    "openai": ("engine/models", "engine/wrapper.py", "engine/backends.py"),  # these name its types
    "aiohttp": "engine/models",
    "anthropic": "engine/models/native/messages_api.py",
    "genai_prices": "engine/models/kept_prices.py",
    "jwt": "server",
    "sqlite3": ("store", "service/documents/databases.py"),  # an SQLite file that somebody sends
    "prometheus_client": "server/http/prometheus.py",
    "kreuzberg": "service/documents/reading.py",
    "sqlite_utils": "store",
    "wasmtime": "sandbox/portable/process",
    # A command that is a model; and this program, started anew.
    "subprocess": (
        "sandbox",
        "service/documents/converter.py",
        "engine/models/commands",
        "engine/parsing/guarded_process.py",
        "cli/detaching.py",
    ),
    "click": "cli",
    "rich": "cli",
    "ray": "service/executor/ray_cluster.py",
    "platformdirs": ("settings.py", "sandbox/portable/module.py"),  # the latter keeps a cache
}
# What stands beside model code, or around it, may use these of ours and the standard library.
PORTABLE = (
    "rlm_mcp.sandbox.portable.process",
    "rlm_mcp.sandbox.portable.guest",
    "rlm_mcp.sandbox.docker.inside",
)
BESIDE_MODEL_CODE = ("sandbox.child", "sandbox.walls")
SHARED_WITH_THE_CHILD = (
    "rlm_mcp.errors",
    "rlm_mcp.sandbox.wire",
    "rlm_mcp.sandbox.layout",
    "rlm_mcp.sandbox.boot",
    "rlm_mcp.sandbox.types",
    "rlm_mcp.sandbox.walls",
    "rlm_mcp.sandbox.child",
)


SUPPRESSION = re.compile(r"# (noqa: [A-Z0-9, ]+|(pyright|type): ignore\[[\w, -]+\])")


def floor_of(name: str) -> int:
    """The floor on which a module stands, counted from the top."""
    first = name.split(".")[1] if "." in name else "__init__"
    return next(index for index, floor in enumerate(FLOORS) if first in floor)


def is_below(name: str, folders: tuple[str, ...]) -> bool:
    return any(name == one or name.startswith(f"{one}.") for one in folders)


@pytest.mark.parametrize("name", modules())
def test_imports_go_down_the_layers(name: str) -> None:
    if name == "rlm_mcp":  # the public names, each loaded on first use
        return
    own = name.split(".")[1]
    for other in imports(modules()[name]):
        if other.startswith("rlm_mcp") and other.split(".")[1:2] != [own]:
            assert floor_of(name) < floor_of(other), f"{name} imports {other}"


@pytest.mark.parametrize(
    "name",
    [
        name
        for name in modules()
        if is_below(name, ("rlm_mcp.sandbox.child", "rlm_mcp.sandbox.walls", *PORTABLE))
    ],
)
def test_what_runs_beside_model_code_imports_the_standard_library_and_little_of_ours(
    name: str,
) -> None:
    for other in imports(modules()[name]):
        if other.startswith("rlm_mcp"):
            allowed = SHARED_WITH_THE_CHILD
            if is_below(name, ("rlm_mcp.sandbox.walls",)):
                allowed = ("rlm_mcp.errors", "rlm_mcp.sandbox.types", "rlm_mcp.sandbox.walls")
            if is_below(name, PORTABLE):
                allowed = (*SHARED_WITH_THE_CHILD, "rlm_mcp.sandbox.portable.boot", *PORTABLE)
            assert is_below(other, allowed), f"{name} imports {other}"
        elif not is_below(name, PORTABLE[:1]) or other != "wasmtime":
            assert other.split(".")[0] in sys.stdlib_module_names, f"{name} imports {other}"


@pytest.mark.parametrize(
    "name",
    [name for name in modules() if not is_below(name, ("rlm_mcp.sandbox.child", *PORTABLE[1:]))],
)
def test_nothing_of_the_host_imports_the_child(name: str) -> None:
    children = [
        one for one in imports(modules()[name]) if is_below(one, ("rlm_mcp.sandbox.child",))
    ]

    assert children == []


@pytest.mark.parametrize("library", HOMES)
def test_a_foreign_library_has_one_home(library: str) -> None:
    named = HOMES[library]
    homes = {PACKAGE / home for home in ((named,) if isinstance(named, str) else named)}
    users = {
        path
        for path in modules().values()
        if library in {name.split(".")[0] for name in imports(path)}
    }

    assert users
    assert {path for path in users if not homes & {path, *path.parents}} == set()


def test_no_folder_and_no_module_is_too_full() -> None:
    long = {
        str(path.relative_to(ROOT)): lines
        for path in modules().values()
        if (lines := path.read_text().count("\n")) > 370
    }
    assert long == {}
    assert fullest_folder()[0] <= 20


@pytest.mark.parametrize("name", modules())
def test_a_suppression_has_its_reason_beside_it(name: str) -> None:
    assert unexplained(modules()[name].read_text()) == []


def test_a_suppression_without_a_reason_is_seen() -> None:
    bare = "import ray  # noqa: PLC0415"

    assert unexplained(f"x = 1\n{bare}\n{bare}") == [bare, bare]
    assert unexplained(f"# large\n{bare}\n{bare}\n{bare}  # large") == []


def unexplained(source: str) -> list[str]:
    """Lines that suppress a rule, with no comment behind the rule or above the lines."""
    found: list[str] = []
    is_explained = False
    for line in source.splitlines():
        rules = [*SUPPRESSION.finditer(line)]
        if not rules:
            is_explained = line.lstrip().startswith("#")
        elif not is_explained and "#" not in line[rules[-1].end() :]:
            found.append(line)
    return found


def test_no_function_is_long() -> None:
    # The house rule is forty; it is not worth a failing build to be a few lines above it.
    assert long_functions(most=45) == []


def test_no_chain_of_imports_is_long() -> None:
    chain = longest_chain()

    assert len(chain) <= 18, " > ".join(chain)


async def test_a_question_passes_through_few_files_before_its_model_is_asked() -> None:
    files = await files_of_a_call()

    # Fewer would put two things into one file. These 45 are one each: 6 of the server, 7 of the
    # service, 9 of the store, 15 of the engine, 6 of the sandbox, events and text.
    assert 20 < len(files) <= 45, "\n".join(files)
