"""Who holds a port."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from gateway.port_owner import port_owner

LISTEN = """
import socket
listener = socket.create_server((HOST, 0), family=FAMILY)
print(listener.getsockname()[1], flush=True)
input()
"""


@pytest.mark.parametrize(("host", "family"), [("127.0.0.1", socket.AF_INET), ("::1", socket.AF_INET6)])
def test_a_script_is_called_by_its_own_name(tmp_path: Path, host: str, family: socket.AddressFamily) -> None:
    script = tmp_path / "listener"
    script.write_text(LISTEN.replace("HOST", repr(host)).replace("FAMILY", str(int(family))))
    with subprocess.Popen(
        [sys.executable, str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as listener:
        assert listener.stdout is not None
        port = int(listener.stdout.readline())
        assert port_owner(port) == f"listener (pid {listener.pid})"
        listener.communicate("\n")
    assert port_owner(port) is None


def test_a_socket_that_does_not_listen_owns_nothing() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)) as client:
            assert str(os.getpid()) in str(port_owner(port))
            assert port_owner(client.getsockname()[1]) is None


def test_a_process_of_somebody_else_is_not_named(tmp_path: Path) -> None:
    """Its descriptors cannot be read."""
    net = tmp_path / "proc" / "net"
    net.mkdir(parents=True)
    line = "0: 0100007F:1F40 00000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 4711 1"
    (net / "tcp").write_text(f"header\n{line}\n")
    (tmp_path / "proc" / "12").mkdir()
    assert port_owner(8000, tmp_path) is None
