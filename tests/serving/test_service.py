"""A host as a service: TCP, tokens, TLS, readiness, drain, status, logs that rotate."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from tests.serving.test_commands import command

TOUCH = ("--run", "touch:pages=1,rounds=1")
SPIN = "beq r0, r0, 0\n"


@contextmanager
def service(folder: Path, *args: str, **how: object) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A host on a free TCP port, and where that is; READY=1 is what it waits for."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        where = f"tcp:127.0.0.1:{probe.getsockname()[1]}"
    (folder / "token").write_text("a token of sixteen bytes\n")
    line = ["serve", "--listen", where, "--token-file", str(folder / "token")]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ready:
        ready.bind(str(folder / "notify"))
        ready.settimeout(50)
        with subprocess.Popen(
            [sys.executable, "-m", "vkemu", *line, "--set", "host.pages=500", *args],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "NOTIFY_SOCKET": str(folder / "notify")},
        ) as host:
            try:
                assert ready.recv(64) == b"READY=1"
                yield host, where
                if host.returncode is not None and "--guests" not in args:
                    assert ready.recv(64) == b"STOPPING=1"
            finally:
                host.kill()


def call(*args: str) -> tuple[int, str, str]:
    with command(*args) as process:
        out, err = process.communicate(timeout=50)
    return process.returncode, out, err


@pytest.mark.slow
def test_tls_tokens_status_and_a_log_that_rotates(tmp_path: Path) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("no openssl to make a certificate with")
    pem = tmp_path / "host.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
         "-nodes", "-days", "2", "-subj", "/CN=localhost", "-addext",
         "subjectAltName=IP:127.0.0.1", "-keyout", str(pem), "-out", str(pem) + ".crt"],
        check=True, capture_output=True,
    )  # fmt: skip
    runs = tmp_path / "runs"
    tls = ["--tls-cert", f"{pem}.crt", "--tls-key", str(pem)]
    with service(tmp_path, *tls, "--runs", str(runs)) as (host, where):
        how = ["--socket", where, "--tls-ca", f"{pem}.crt"]
        token = ["--token-file", str(tmp_path / "token")]
        (tmp_path / "other").write_text("a token of sixteen bytas\n")
        wrong = ["--token-file", str(tmp_path / "other")]
        plain = call("guest", "--socket", where, *token, "-m", "64M", *TOUCH)
        stranger = call("guest", *how, *wrong, "-m", "64M", *TOUCH)
        (log,) = runs.glob("*/events.ndjson")
        log.rename(log.with_suffix(".1"))
        host.send_signal(signal.SIGHUP)
        guest = call("guest", *how, *token, "-m", "64M", "--name", "one", *TOUCH)
        told = call("status", where, "--tls-ca", f"{pem}.crt", *token, "--json")
        metrics = call("status", where, "--tls-ca", f"{pem}.crt", *token, "--openmetrics")
        host.send_signal(signal.SIGTERM)
        host.communicate(timeout=50)

    assert host.returncode == 0
    assert plain[0] == stranger[0] == 3
    assert "not the token of this host" in stranger[2]
    assert guest[0] == 0, guest
    assert json.loads(told[1])["served"] == 1
    found = text_string_to_metric_families(metrics[1])  # type: ignore[no-untyped-call]
    families = {family.name: family for family in found}
    assert families["vkemu_guests"].samples[0].value == 0
    folder = runs / "latest"  # it has its name now
    assert "fault.begin" in (folder / "events.ndjson").read_text()
    assert "fault.begin" not in (folder / "events.1").read_text()


@pytest.mark.slow
def test_told_to_stop_it_waits_for_its_guests_so_long(tmp_path: Path) -> None:
    """And one that asks nothing is let go; nobody reads standard error all the while."""
    (tmp_path / "spin.s").write_text(SPIN)
    token = ["--token-file", str(tmp_path / "token")]
    with service(tmp_path, "--drain", "30") as (host, where):
        assert host.stderr is not None
        host.stderr.close()
        line = ["guest", "--socket", where, *token, "-m", "64M", "-v"]
        with command(*line, "--program", str(tmp_path / "spin.s")) as spinning:
            assert spinning.stderr is not None
            spinning.stderr.readline()  # it has booted
            host.send_signal(signal.SIGTERM)
            refused = call(*line, *TOUCH)
            host.send_signal(signal.SIGTERM)  # no patience with it
            host.wait(timeout=50)
            spinning.communicate(timeout=50)

    assert refused[0] != 0
    assert host.returncode in (0, 3)


@pytest.mark.slow
def test_more_connections_than_descriptors(tmp_path: Path) -> None:
    """They are refused or wait; the host goes on."""
    token = ["--token-file", str(tmp_path / "token")]
    with service(tmp_path, "--limit", "peers=8") as (host, where):
        resource = pytest.importorskip("resource")
        resource.prlimit(host.pid, resource.RLIMIT_NOFILE, (48, 48))
        address = ("127.0.0.1", int(where.rpartition(":")[2]))
        crowd = [socket.create_connection(address) for _ in range(200)]
        for silent in crowd:
            silent.close()
        guest = call("guest", "--socket", where, *token, "-m", "64M", *TOUCH)
        host.send_signal(signal.SIGTERM)
        host.communicate(timeout=50)

    assert guest[0] == 0, guest
    assert host.returncode == 0
