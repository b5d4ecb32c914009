"""The release script: entries of server.json are read from what was built."""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import sys
import tarfile
import zipfile
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import pytest

import rlm_mcp

ROOT = Path(__file__).parent.parent
SCRIPT = ROOT / "packaging" / "release.py"
NAME = json.loads((ROOT / "server.json").read_text())["name"]
DOCKERFILE = (ROOT / "packaging" / "container" / "Dockerfile").read_text()
URL = "https://github.com/rlm-mcp/rlm-mcp/releases/download/v1/rlm-mcp.mcpb"


def a_bundle(directory: Path, version: str = rlm_mcp.__version__) -> Path:
    file = directory / "rlm-mcp.mcpb"
    with zipfile.ZipFile(file, "w") as packed:
        packed.writestr("manifest.json", json.dumps({"version": version}))
    return file


def an_image(directory: Path, name: str = NAME) -> Path:
    """An image with no layer, as an OCI archive."""
    label = {"io.modelcontextprotocol.server.name": name}
    config: dict[str, Any] = {"config": {"Labels": label, "ExposedPorts": {"8000/tcp": {}}}}
    blobs: dict[str, bytes] = {}

    def store(content: dict[str, Any]) -> dict[str, str]:
        data = json.dumps(content).encode()
        digest = hashlib.sha256(data).hexdigest()
        blobs[f"blobs/sha256/{digest}"] = data
        return {"digest": f"sha256:{digest}"}

    manifest = store({"config": store(config), "layers": []})
    blobs["index.json"] = json.dumps({"manifests": [manifest]}).encode()
    file = directory / "image.tar"
    with tarfile.open(file, "w") as packed:
        for path, data in blobs.items():
            entry = tarfile.TarInfo(path)
            entry.size = len(data)
            packed.addfile(entry, io.BytesIO(data))
    return file


def release(directory: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(SCRIPT), *map(str, arguments), "--output", directory / "server.json"],
        capture_output=True,
        text=True,
        check=False,
    )


def test_what_was_built_is_listed_as_the_registry_takes_it(tmp_path: Path) -> None:
    bundle = a_bundle(tmp_path)
    reference = f"ghcr.io/rlm-mcp/rlm-mcp:{rlm_mcp.__version__}"
    done = release(
        tmp_path, "--bundle", bundle, "--bundle-url", URL,
        "--image", an_image(tmp_path), "--image-reference", reference,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    server = json.loads((tmp_path / "server.json").read_text())
    schema = files("skillsaw") / "schemas/mcp_registry/v2025_12_11/server.schema.json"
    jsonschema.validate(server, json.loads(schema.read_text()))
    pypi, mcpb, oci = server["packages"]

    assert pypi["registryType"] == "pypi"
    assert mcpb["fileSha256"] == hashlib.sha256(bundle.read_bytes()).hexdigest()
    assert (oci["identifier"], oci["transport"]["url"]) == (reference, "http://127.0.0.1:8000/mcp")
    assert oci["environmentVariables"][0]["name"] == "RLM_MCP_HTTP_TOKEN"


@pytest.mark.parametrize("wrong", ["bundle", "image", "reference"])
def test_an_artefact_of_another_server_or_version_is_not_listed(wrong: str, tmp_path: Path) -> None:
    bundle = a_bundle(tmp_path, "0.0.0" if wrong == "bundle" else rlm_mcp.__version__)
    image = an_image(tmp_path, "io.github.other/server" if wrong == "image" else NAME)
    version = "latest" if wrong == "reference" else rlm_mcp.__version__
    done = release(
        tmp_path, "--bundle", bundle, "--bundle-url", URL,
        "--image", image, "--image-reference", f"ghcr.io/rlm-mcp/rlm-mcp:{version}",
    )  # fmt: skip

    assert done.returncode != 0
    assert "NotFit" in done.stderr
    assert not (tmp_path / "server.json").exists()


def test_the_image_carries_the_label_that_the_registry_asks_for() -> None:
    assert f'io.modelcontextprotocol.server.name="{NAME}"' in DOCKERFILE
