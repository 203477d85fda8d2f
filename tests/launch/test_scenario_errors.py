"""A mistake in a scenario file is one line: where, what, what was expected. Exit status 2."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from vkemu.launch.scenario import Scenario, load, read, size_bytes
from vkemu.verdict import UsageError

from tests.shell import TWO_GUESTS, Shell

GUEST = '[[guest]]\nname = "g"\nmemory = "4M"\n'
PROCESS = GUEST + '[[guest.process]]\nprogram = ""\n'

MISTAKES = {
    "colour = 1\n" + TWO_GUESTS: "s.toml:colour: unknown key, expected one of guest, name,",
    GUEST + "vcpu = 2": "s.toml:guest[0].vcpu: unknown key, expected one of name, memory, vcpus",
    GUEST + 'vcpus = "two"': "s.toml:guest[0].vcpus: got str 'two', expected int",
    GUEST + "vcpus = 0": "s.toml:guest[0].vcpus: 0, expected int >= 1",
    '[[guest]]\nname = "g"': "s.toml:guest[0].memory: missing, expected a value",
    "guest = 1": "s.toml:guest: got int 1, expected array",
    "guest = []": "s.toml:guest: none, expected at least one [[guest]]",
    'expect = "maybe"\n' + TWO_GUESTS: "s.toml:expect: 'maybe' is not allowed, expected one of",
    'policy = "magic"\n' + TWO_GUESTS: "s.toml:policy: unknown 'magic', expected one of",
    'mutants = ["x"]\n' + TWO_GUESTS: "s.toml:mutants[0]: unknown 'x', expected one of",
    'checks = ["x"]\n' + TWO_GUESTS: "s.toml:checks[0]: unknown 'x', expected one of",
    "[quirks]\nx = true\n" + TWO_GUESTS: "s.toml:quirks.x: unknown key, expected one of",
    "[host]\npages = 4\n" + TWO_GUESTS: "s.toml:host.pages: 4, expected 16 or more",
    "[host]\nhz = 0\n" + TWO_GUESTS: "s.toml:host.hz: 0, expected 1 to 10000",
    GUEST + "[host]\ncpus = 1025\n": "s.toml:host.cpus: 1025, expected 1 to 1024",
    "[host]\ncpus = 3\n" + TWO_GUESTS: "s.toml:host.cpus: 3, expected 4: one for each vCPU",
    "[host]\npages = 64\nfree_min = 65\n" + TWO_GUESTS: "s.toml:host.free_min: 65, expected 0 to",
    GUEST: "s.toml:guest[0]: nothing to run, expected workloads or [[guest.process]]",
    GUEST + 'workloads = ["nope"]': "s.toml:guest[0].workloads[0]: no workload 'nope', expected",
    GUEST + 'workloads = ["touch:x=1"]': "s.toml:guest[0].workloads[0]: workload touch: no para",
    PROCESS.replace('""', '"mov r1"'): "s.toml:guest[0].process[0].program: line 1: no instruction",
    GUEST.replace("4M", "4Q"): "s.toml:guest[0].memory: '4Q' is no size, expected",
    GUEST.replace('"4M"', "4097"): "s.toml:guest[0].memory: 4097, expected a positive multiple",
    GUEST.replace('"4M"', "-4096"): "s.toml:guest[0].memory: -4096, expected a positive multiple",
    GUEST.replace("4M", "600G"): "s.toml:guest[0].memory: 600G, expected a positive multiple",
    TWO_GUESTS.replace("g2", "g1"): "s.toml:guest[1].name: 'g1' again, expected another",
    GUEST.replace('"4M"', "9" * 5000): "s.toml: a number too long, expected numbers of 64 bits",
    GUEST.replace('"g"', '"g\\n"'): "s.toml:guest[0].name: 'g\\n', expected str matching",
    PROCESS + 'data = "0p"': (
        "s.toml:guest[0].process[0].data: 0p, expected a positive multiple of 4096 bytes up to 960K"
    ),
    PROCESS + 'region = [{start = 0, size = "2M"}, {start = 0x2000, size = 4096}]': (
        "s.toml:guest[0].process[0].region[1].start: 0x2000-0x3000 overlaps region[0] 0x0-0x200000"
    ),
    PROCESS + "region = [{start = 0x400000, size = 4096}]": (
        "s.toml:guest[0].process[0].region[0].start: 0x400000-0x401000 overlaps its text"
    ),
    PROCESS + "region = [{start = 1, size = 4096}]": (
        "s.toml:guest[0].process[0].region[0].start: 0x1, expected a multiple of 4096"
    ),
    "a = \n": "s.toml:1: Invalid value, expected TOML",
    'a = 1\nb = "\n': "s.toml:2: ",
    "[[guest]": "s.toml:1: ",
    "a = 1\na = 2\n": "s.toml:2: ",
}


@pytest.mark.parametrize("text", MISTAKES, ids=lambda text: MISTAKES[text][:50])
def test_one_line_says_where_and_what(shell: Shell, text: str) -> None:
    status, out, err = shell("run", shell.write("s.toml", text))

    assert (status, out) == (2, "")
    assert err.startswith(MISTAKES[text])
    assert err.count("\n") == 1


def test_binary_garbage_is_not_text(shell: Shell) -> None:
    status, _, err = shell("run", shell.write("s.toml", b"a = 1\n\xff\xfe\x00"))

    assert (status, err) == (2, "s.toml:2: not UTF-8 text, expected a scenario in TOML\n")


def test_a_missing_file_names_the_shipped_ones(shell: Shell) -> None:
    status, _, err = shell("run", "nowhere.toml")

    assert status == 2
    assert err.startswith("nowhere.toml: no such file, expected a path or one of ")


@pytest.mark.parametrize("command", ["run", "explore"])
def test_a_path_too_long_for_the_system(shell: Shell, command: str) -> None:
    status, out, err = shell(command, "x" * 5000)

    assert (status, out) == (2, "")
    assert err.startswith("x" * 80)
    assert err.endswith("expected a path or a name\n")
    assert len(err) < 200


def test_a_setting_with_a_number_too_long(shell: Shell) -> None:
    status, _, err = shell("run", "quickstart", "--set", "host.pages=" + "9" * 5000)

    assert (status, err.count("\n")) == (2, 1)
    assert "quickstart.toml:host.pages: got str '999" in err


@pytest.mark.parametrize(
    ("command", "says"),
    [
        (["run", "s.toml", "--policy", "\udcff"], "vkemu run: '\\udcff', expected UTF-8 text"),
        (
            ["run", "s.toml", "--live", "--seed", "-1"],
            "vkemu run: argument --seed: -1, expected 0 to",
        ),
        (["explore", "s.toml", "--max-seconds", "nan"], "more than 0"),
        (["explore", "s.toml", "--max-seconds", "-1"], "more than 0"),
        (["explore", "s.toml", "--policy", "magic"], "--policy 'magic', expected one of"),
        (["explore", "s.toml", "--variant", "x"], "--variant 'x', expected none: s.toml is a"),
    ],
    ids=lambda what: "".join(filter(str.isalnum, what)) if isinstance(what, str) else None,
)
def test_what_an_option_cannot_be(shell: Shell, command: list[str], says: str) -> None:
    shell.write("s.toml", TWO_GUESTS)

    status, out, err = shell(*command)

    assert (status, out, err.count("\n")) == (2, "", 1)
    assert says in err
    assert not (shell.cwd / "runs").exists()


@pytest.mark.parametrize("kind", ["folder", "fifo"])
def test_what_is_not_a_regular_file_is_not_read(shell: Shell, kind: str) -> None:
    path = shell.cwd / "thing"
    path.mkdir() if kind == "folder" else os.mkfifo(path)

    status, _, err = shell("run", "thing")

    assert (status, err) == (2, "thing: not a regular file, expected a scenario in TOML\n")


def test_a_file_too_large_is_not_read(shell: Shell) -> None:
    status, _, err = shell("run", shell.write("s.toml", b"#" * (1 << 20) + b"\n"))

    assert status == 2
    assert err.startswith("s.toml: more than 1048576 bytes")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(raw=st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_whatever_bytes_a_file_has_the_answer_is_a_line(raw: bytes, tmp_path: Path) -> None:
    path = tmp_path / "s.toml"
    path.write_bytes(raw)

    with pytest.raises(UsageError) as caught:
        load(str(path))

    assert "\n" not in str(caught.value)


KEYS = st.sampled_from([*Scenario.__struct_fields__, "pages", "memory", "workloads", "start", "x"])
TREES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=200)
@given(document=st.dictionaries(KEYS, TREES, max_size=6))
def test_whatever_tables_a_file_has_the_answer_is_a_line(document: dict[str, object]) -> None:
    try:
        read(document, Path("s.toml"))
    except UsageError as error:
        assert "\n" not in str(error)  # noqa: PT017 - most documents are wrong, some are right


@pytest.mark.parametrize(
    ("size", "expected"),
    [(4096, 4096), ("4096", 4096), ("8K", 8192), ("1m", 1 << 20), ("3p", 12288)],
)
def test_sizes(size: int | str, expected: int) -> None:
    assert expected == size_bytes(size)


@pytest.mark.parametrize("setting", ["host.interlock=false", "[host]\ninterlock=false"])
def test_a_setting_is_laid_over_the_file(shell: Shell, setting: str) -> None:
    path = shell.write("s.toml", TWO_GUESTS)

    assert load(path).host.interlock is True
    assert load(path, [setting]).host.interlock is False


def test_a_setting_may_leave_out_the_quotes(shell: Shell) -> None:
    assert load(shell.write("s.toml", TWO_GUESTS), ["policy=vptmapped"]).policy == "vptmapped"


def test_identity_is_what_the_file_means(shell: Shell) -> None:
    plain = load(shell.write("a.toml", TWO_GUESTS)).identity

    assert plain == load(shell.write("b.toml", "seed = 9\n# words\n" + TWO_GUESTS)).identity
    assert plain != load(shell.write("c.toml", TWO_GUESTS.replace("1M", "2M"))).identity


def test_every_shipped_scenario_is_toml_with_a_purpose() -> None:
    for path in (Path(__file__).parents[2] / "tools/vkemu/scenarios").glob("*.toml"):
        assert tomllib.loads(path.read_text())["about"]
