"""`vkemu serve` and `vkemu guest` as a user runs them: processes, signals, exit statuses."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from vkemu.commands.cli import main
from vkemu.executors.backend import BACKENDS
from vkemu.inspect.reader import Log

backends = pytest.mark.parametrize("backend", BACKENDS)


@contextmanager
def command(*args: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "vkemu", *args],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


@contextmanager
def serve_command(path: Path, *args: str) -> Iterator[subprocess.Popen[str]]:
    with command("serve", "--socket", str(path), "--set", "host.pages=500", *args) as host:
        assert host.stderr is not None
        if "--runs" in args:
            assert host.stderr.readline().startswith("logging to ")
        assert host.stderr.readline() == f"serving at {path}\n"
        yield host


@pytest.mark.slow
@backends
def test_host_and_guests_as_processes(backend: str, tmp_path: Path) -> None:
    path = tmp_path / "host"
    line = ["--socket", str(path), "-m", "64M", "--run", "touch:pages=2,rounds=2", "--json"]
    with serve_command(path, "--guests", "2", "--backend", backend, "--json") as host:
        one = ["guest", *line, "--name", "one", "-n", "2", "--backend", backend]
        two = ["guest", *line, "--name", "two", "--run", "forkcow", "--host-image"]
        with command(*one) as first, command(*two) as second:
            first_out, first_err = first.communicate(timeout=50)
            second_out, _ = second.communicate(timeout=50)
        host_out, host_err = host.communicate(timeout=50)

    assert (first.returncode, second.returncode, host.returncode) == (0, 0, 0)
    assert json.loads(first_out)["results"]["1"] == json.loads(second_out)["results"]["1"]
    assert sorted(json.loads(second_out)["results"]) == ["1", "2", "201"]
    assert "Using anonymous memory (64 MB)" in first_err
    assert json.loads(host_out)["guests"] == 2
    assert sorted(host_err.splitlines()) == ["'one': done", "'two': done"]
    assert not path.exists()


@pytest.mark.slow
def test_a_killed_guest_process_is_let_go(tmp_path: Path) -> None:
    path = tmp_path / "host"
    (tmp_path / "spin.s").write_text("beq r0, r0, 0\n")
    line = ["guest", "--socket", str(path), "-m", "64M"]
    with serve_command(path, "--guests", "2") as host:
        assert host.stderr is not None
        spin = ["--program", str(tmp_path / "spin.s"), "--name", "spin", "-v"]
        with command(*line, *spin) as spinning:
            assert spinning.stderr is not None
            spinning.stderr.readline()  # it has booted
            spinning.send_signal(signal.SIGKILL)
            assert host.stderr.readline() == "'spin': vanished without a goodbye\n"
        with command(*line, "--run", "touch") as other:
            assert other.wait(timeout=50) == 0
        assert host.wait(timeout=50) == 0


@pytest.mark.slow
def test_a_host_that_is_told_to_stop_says_goodbye(tmp_path: Path) -> None:
    path = tmp_path / "host"
    (tmp_path / "spin.s").write_text("beq r0, r0, 0\n")
    with (
        serve_command(path, "--runs", str(tmp_path / "runs")) as host,
        command(
            *("guest", "--socket", str(path), "-m", "64M", "--name", "spin"),
            *("--program", str(tmp_path / "spin.s")),
        ) as guest,
    ):
        assert guest.stderr is not None
        assert guest.stderr.readline() == "spin: Using anonymous memory (64 MB)\n"
        host.send_signal(signal.SIGTERM)
        out, err = host.communicate(timeout=50)
        _, why = guest.communicate(timeout=50)

    assert (host.returncode, guest.returncode) == (0, 3)
    assert out.startswith("pass: 1 guests, ")
    assert err == "'spin': the host shuts down\n"
    assert "the host said goodbye: the host shuts down" in why
    summary = json.loads((tmp_path / "runs/latest/summary.json").read_text())
    assert (summary["verdict"], summary["guests"], summary["dropped"]) == ("pass", 1, 0)
    assert main(["log", "check", str(tmp_path / "runs/latest")]) == 0


@pytest.mark.slow
def test_a_host_logs_compressed_and_shows_its_events(tmp_path: Path) -> None:
    """Both at once; standard error is no terminal here, so it gets the lines of the log."""
    pytest.importorskip("backports.zstd")
    path = tmp_path / "host"
    options = ["--runs", str(tmp_path / "runs"), "--zstd", "--events", "--guests", "1"]
    with serve_command(path, *options) as host:
        touch = ["--run", "touch:pages=1,rounds=1"]
        with command("guest", "--socket", str(path), "-m", "64M", *touch) as guest:
            assert guest.wait(timeout=50) == 0
        _, err = host.communicate(timeout=50)

    assert host.returncode == 0
    shown = [line for line in err.splitlines() if line.startswith("{")]
    logged = list(Log(tmp_path / "runs/latest/events.ndjson.zst").events())
    assert [json.loads(line) for line in shown] == logged
    assert any(event["event"] == "fault.begin" for event in logged)


def test_wrong_command_lines_are_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    nobody = str(tmp_path / "nobody")
    taken = tmp_path / "taken"
    taken.write_text("a file")
    lines = {
        "guest -m 64M": "vkemu guest: the following arguments are required: --socket",
        f"guest --socket {nobody}": "vkemu guest: System memory size must be specified with -m",
        f"guest --socket {nobody} -m 65M": "vkemu guest: Bad maxmem specification: 64MB minimum",
        f"guest --socket {nobody} -m 64M -r disk": "vkemu guest: -r is not emulated: there are no",
        f"guest --socket {nobody} -m 64M": f"vkemu guest: {nobody}: No such file",
        f"guest --socket {nobody} -m 64M --swap 64M": "vkemu guest: --swap 64M, expected a multi",
        f"guest --socket {nobody} -m 64M --swap 4097": "vkemu guest: --swap 4097, expected a mul",
        f"guest --socket {nobody} -m 64M --run no": "vkemu guest: --run no: ",
        f"guest --socket {nobody} -m 64M --program {nobody}": f"{nobody}: No such file",
        f"serve --socket {taken}": f"vkemu serve: {taken}: exists and is no socket",
        f"serve --socket {nobody} --policy none": "vkemu serve:policy: unknown 'none'",
        f"serve --socket {nobody} --set host.pages=1": "vkemu serve:host.pages: 1, expected 16",
        f"serve --socket {nobody} --guests 0": "vkemu serve: argument --guests: 0, expected at",
        f"serve --socket {nobody} --time-scale 0": "vkemu serve: argument --time-scale: '0', exp",
        f"serve --socket {nobody} --zstd": "vkemu serve: --zstd, expected with --runs",
        f"serve --socket {tmp_path / ('x' * 200)}": "vkemu serve: ",
    }
    for line, message in lines.items():
        assert main(line.split()) == 2, line
        error = capsys.readouterr().err
        assert error.startswith(message), line
        assert error.count("\n") == 1, line


def test_a_pid_file_is_locked_while_the_guest_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from vkemu.commands.guest import pidfile

    file = tmp_path / "pid"
    with pidfile(str(file)):
        assert file.read_text() == f"{os.getpid()}\n"
        line = f"guest --socket {tmp_path / 'nobody'} -m 64M -p {file}"
        assert main(line.split()) == 2
        assert "Failed to lock pidfile, vkernel already running" in capsys.readouterr().err
        assert file.read_text() == f"{os.getpid()}\n"
    assert not file.exists()
    assert main(f"guest --socket x -m 64M -p {tmp_path}/no/pid".split()) == 2
    assert "Failed to create pidfile" in capsys.readouterr().err


@pytest.mark.slow
def test_a_listening_socket_of_another_kind_is_no_host(tmp_path: Path) -> None:
    """Something that accepts and says nothing useful."""
    path = tmp_path / "other"
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(os.fspath(path))
        other.listen()
        with command("guest", "--socket", str(path), "-m", "64M") as guest:
            there, _ = other.accept()
            there.sendall(b"220 mail ready\r\n")
            _, error = guest.communicate(timeout=50)
            there.close()

    assert guest.returncode == 3
    assert "the host byte 0: expected a frame (0xc6), got 0x32" in error
