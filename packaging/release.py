"""Adds a bundle and an image that were built to server.json: python packaging/release.py --help.

What it writes is read from the artefacts themselves: their version, name and hash.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import tarfile
import zipfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
NAME_LABEL = "io.modelcontextprotocol.server.name"
Package = dict[str, Any]


class NotFitError(Exception):
    """An artefact is not one of this version of this server."""


def bundle_package(bundle: Path, url: str, version: str) -> Package:
    """The entry of a bundle, which is offered at an address.

    Raises:
        NotFitError: it is of another version.
    """
    with zipfile.ZipFile(bundle) as packed:
        manifest = json.loads(packed.read("manifest.json"))
    if manifest["version"] != version:
        raise NotFitError(f"{bundle} has version {manifest['version']!r}, not {version!r}.")
    return {
        "registryType": "mcpb",
        "identifier": url,
        "fileSha256": hashlib.sha256(bundle.read_bytes()).hexdigest(),
        "transport": {"type": "stdio"},
    }


def image_package(archive: Path, reference: str, server: dict[str, Any]) -> Package:
    """The entry of an image, from its OCI archive (`buildah push IMAGE oci-archive:FILE`).

    Raises:
        NotFitError: its label names another server, or its reference another version.
    """
    config = _image_config(archive)
    named = (config.get("config", {}).get("Labels") or {}).get(NAME_LABEL)
    if named != server["name"]:
        raise NotFitError(f"{archive} is labelled {named!r}, not {server['name']!r}.")
    if not reference.endswith(f":{server['version']}"):
        raise NotFitError(f"{reference!r} does not end in the version, {server['version']!r}.")
    [port] = [one.removesuffix("/tcp") for one in config["config"]["ExposedPorts"]]
    token = {
        "name": "RLM_MCP_HTTP_TOKEN",
        "description": "Token that clients send; make one with `openssl rand -hex 32`.",
        "isRequired": True,
        "isSecret": True,
    }
    authorization = {
        "name": "Authorization",
        "description": "The same token.",
        "value": "Bearer {token}",
        "variables": {"token": {"isRequired": True, "isSecret": True}},
        "isRequired": True,
        "isSecret": True,
    }
    return {
        "registryType": "oci",
        "identifier": reference,
        "runtimeHint": "docker",
        "transport": {
            "type": "streamable-http",
            "url": f"http://127.0.0.1:{port}/mcp",
            "headers": [authorization],
        },
        "runtimeArguments": [
            {"type": "named", "name": "--publish", "value": f"127.0.0.1:{port}:{port}"},
            {"type": "named", "name": "--volume", "value": "rlm-mcp:/data"},
        ],
        "environmentVariables": [token, *server["packages"][0]["environmentVariables"]],
    }


def _image_config(archive: Path) -> dict[str, Any]:
    with tarfile.open(archive) as packed:

        def read(name: str) -> dict[str, Any]:
            file = packed.extractfile(name)
            if file is None:
                raise NotFitError(f"{archive} has no file {name!r}.")
            return json.load(file)

        def blob(descriptor: dict[str, Any]) -> dict[str, Any]:
            return read("blobs/" + descriptor["digest"].replace(":", "/"))

        [manifest] = read("index.json")["manifests"]
        return blob(blob(manifest)["config"])


def main() -> None:
    """Write a server.json with what was built."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundle", type=Path, help="the file that packaging/mcpb/pack made")
    parser.add_argument("--bundle-url", help="where it can be downloaded")
    parser.add_argument("--image", type=Path, help="the image as an OCI archive")
    parser.add_argument("--image-reference", help="registry/owner/name:version")
    parser.add_argument("--output", type=Path, required=True)
    given = parser.parse_args()
    server = json.loads((ROOT / "server.json").read_text())
    if given.bundle:
        server["packages"].append(bundle_package(given.bundle, given.bundle_url, server["version"]))
    if given.image:
        server["packages"].append(image_package(given.image, given.image_reference, server))
    given.output.write_text(json.dumps(server, indent=2) + "\n")


if __name__ == "__main__":
    main()
