"""A Ray cluster on loopback: a head, and nodes that each offer a worker, killed on command.

`python -m tests.ray.nodes NUMBER` starts so many, says where the cluster is, obeys `kill ADDRESS`
and `add`, one a line on its standard input, and ends the cluster when that is closed. Nodes get
addresses of their own from 127.0.0.2 on: Ray takes 127.0.0.1 for the machine's public address.
"""

from __future__ import annotations

import itertools
import json
import os
import socket
import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any

# It reads these when it is imported. A node that ends is noticed as its connection breaks; the
# health checks are for one that hangs, and patient, as this machine may be slow.
ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_worker_niceness": "0",
    "RAY_raylet_start_wait_time_s": "120",
    "RAY_agent_register_timeout_ms": "120000",
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "5000",
    "RAY_health_check_failure_threshold": "3",
    "RAY_object_manager_pull_timeout_ms": "1000",
}
_STORE_BYTES = 100 << 20
_UNUSED_PORTS = ("metrics_agent_port", "metrics_export_port", "dashboard_agent_listen_port")


def key_of(address: str) -> str:
    """The key for models that a node has, so that what a model was asked tells who asked."""
    return f"key-of-{address}"


def main() -> None:
    """Start the cluster, and obey."""
    os.environ.update(ENVIRONMENT)
    utilities: Any = import_module("ray.cluster_utils")
    _name_ports_beforehand()
    numbers = itertools.count(2)
    shared: dict[str, Any] = {"object_store_memory": _STORE_BYTES}
    head = {"include_dashboard": False, "num_cpus": 1, "runtime_env_agent_port": _free_port()}
    cluster = utilities.Cluster(
        initialize_head=True,
        head_node_args={"node_ip_address": f"127.0.0.{next(numbers)}", **head, **shared},
    )
    nodes: dict[str, Any] = {}

    def add() -> None:
        address = f"127.0.0.{next(numbers)}"
        os.environ["RLM_MCP_API_KEY"] = key_of(address)
        offer = {"num_cpus": 1, "resources": {"rlm_worker": 1}, **shared}
        offer["runtime_env_agent_port"] = _free_port()
        nodes[address] = cluster.add_node(node_ip_address=address, **offer)

    def remove(address: str) -> None:
        cluster.remove_node(nodes.pop(address), allow_graceful=False)

    try:
        for _ in range(int(sys.argv[1])):
            add()
        _obey(add, remove, lambda: {"address": cluster.address, "nodes": list(nodes)})
    finally:
        cluster.shutdown()


def _obey(
    add: Callable[[], None], remove: Callable[[str], None], tell: Callable[[], dict[str, Any]]
) -> None:
    print(json.dumps(tell()), flush=True)
    for line in sys.stdin:
        command, _, address = line.strip().partition(" ")
        if command == "add":
            add()
        else:
            remove(address)
        print(json.dumps(tell()), flush=True)


def _name_ports_beforehand() -> None:
    """Have nodes not wait for their agents, which take longer than they wait on a slow machine."""
    kind: Any = import_module("ray._private.node").Node
    persist_port: Any = import_module("ray._raylet").persist_port
    start_raylet = kind.start_raylet

    def start(node: Any, *arguments: Any, **named: Any) -> None:
        place = node.get_session_dir_path(), node.node_id
        for name in _UNUSED_PORTS:
            persist_port(*place, name, -1)
        persist_port(*place, "runtime_env_agent_port", node._ray_params.runtime_env_agent_port)
        start_raylet(node, *arguments, **named)

    kind.start_raylet = start


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("", 0))
        return one.getsockname()[1]


if __name__ == "__main__":
    main()
