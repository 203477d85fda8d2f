"""The command line of vkernel(7): what is accepted, what is refused, in whose words."""

from __future__ import annotations

import argparse

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vkguest.vkernel64.options import (
    ABSENT,
    MAXCPU,
    OptionError,
    Options,
    add_options,
    kern_envp,
    memory_size,
    options_of,
    strtoull,
    topology,
)


def parsed(line: str) -> Options:
    parser = argparse.ArgumentParser(exit_on_error=False)
    add_options(parser)
    return options_of(parser.parse_args(line.split()))


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("64m", 64 << 20),
        ("64M", 64 << 20),
        ("65536K", 64 << 20),
        ("65536k", 64 << 20),
        ("1g", 1 << 30),
        ("512G", 512 << 30),
        ("66M", 66 << 20),
        ("0x40M", 64 << 20),
        ("0100M", 64 << 20),
        ("64Megabytes", 64 << 20),  # only the first letter counts
        (" +64M", 64 << 20),
    ],
)
def test_sizes_that_are_taken(text: str, size: int) -> None:
    assert memory_size(text) == size


MULTIPLES = "Bad maxmem specification: 64MB minimum, multiples of 2MB only"
MANDATORY = "System memory size must be specified with -m"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", MANDATORY),
        ("0M", MANDATORY),
        ("67108864", "Bad maxmem option"),  # no suffix, though the manual speaks of bytes
        ("64T", "Bad maxmem option"),
        ("M", MANDATORY),  # strtoull finds no number: 0
        ("big", "Bad maxmem option"),
        ("08M", "Bad maxmem option"),  # octal ends at the 8
        ("62M", MULTIPLES),
        ("65535K", MULTIPLES),
        ("65M", MULTIPLES),
        ("65537K", MULTIPLES),
        ("514G", "Bad maxmem specification: the DMAP spans 512GB"),
        ("-64M", "Bad maxmem specification: the DMAP spans 512GB"),
    ],
)
def test_sizes_that_are_refused(text: str, message: str) -> None:
    with pytest.raises(OptionError) as caught:
        memory_size(text)

    assert str(caught.value) == message


@given(st.integers(0, 1 << 70))
def test_strtoull_reads_what_python_writes(number: int) -> None:
    expected = min(number, (1 << 64) - 1)

    assert strtoull(f"{number}x") == (expected, "x")
    assert strtoull(hex(number)) == (expected, "")
    assert strtoull(f"0{number:o}9") == (expected, "9")
    assert strtoull(f"-{number}") == (-expected % (1 << 64), "")


def test_strtoull_saturates() -> None:
    assert strtoull("9" * 5000 + "M") == ((1 << 64) - 1, "M")
    assert strtoull("1" + "0" * 20) == ((1 << 64) - 1, "")
    assert strtoull("18446744073709551615") == ((1 << 64) - 1, "")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("1", (1, 1, 0)),
        ("2", (2, 1, 0)),
        ("3", (3, 1, 1)),
        ("8", (8, 1, 2)),
        ("16:2", (16, 2, 2)),
        ("4:0", (4, 0, 2)),
        ("4:1:1", (4, 1, 1)),
        ("0x10", (16, 1, 3)),
        (str(MAXCPU), (MAXCPU, 1, 5)),
    ],
)
def test_cpus_and_topology(text: str, found: tuple[int, int, int]) -> None:
    assert topology(text) == found


@pytest.mark.parametrize("text", ["0", str(MAXCPU + 1), "-1"])
def test_cpus_out_of_range(text: str) -> None:
    with pytest.raises(OptionError, match=rf"^Bad ncpus, valid range is 1-{MAXCPU}$"):
        topology(text)


@pytest.mark.parametrize("text", ["", ":", "1:2:3:4", "two", "2:9", "2x"])
def test_topologies_that_are_none(text: str) -> None:
    with pytest.raises(OptionError):
        topology(text)


@pytest.mark.parametrize(
    ("texts", "found"),
    [
        (["a=1:b=2"], ("a=1", "b=2")),
        (["a=1", "b=2"], ("a=1", "b=2")),
        (['a="x:y":b=2'], ("a=x:y", "b=2")),
        (["a='x:\"y'"], ("a=x:y",)),  # either quote toggles, inside the other too
        (["a=1:"], ("a=1",)),
    ],
)
def test_environment(texts: list[str], found: tuple[str, ...]) -> None:
    if "\"y'" in texts[0]:
        # The original toggles either quote inside the other: the colon is protected by both.
        found = ("a=x:y",)

    assert kern_envp(texts) == found


def test_a_whole_line() -> None:
    options = parsed("-m 64M -n 4:1:1 -e a=1 -e b=2 -p /tmp/pid -zv")

    assert options == Options(
        memory=64 << 20,
        ncpus=4,
        lbits=1,
        cbits=1,
        environment=("a=1", "b=2"),
        pidfile="/tmp/pid",
        prezero=True,
        verbose=True,
    )
    assert parsed("-m64M").ncpus == 2


def test_an_image_is_ignored_with_a_warning() -> None:
    (warning,) = parsed("-m 64M -i /var/vkernel/memimg.000001").warnings

    assert warning.splitlines() == [
        "WARNING: -i option is deprecated and ignored.",
        " Memory is now always anonymous (unlinked file).",
    ]
    with pytest.raises(OptionError, match="must be specified with -m"):
        parsed("-i /var/vkernel/memimg.000001")


@pytest.mark.parametrize("letter", ABSENT)
def test_what_is_not_emulated_says_so(letter: str) -> None:
    argument = "" if ABSENT[letter][0] is None else "x"

    with pytest.raises(OptionError, match=rf"^-{letter} is not emulated: ") as caught:
        parsed(f"-m 64M -{letter} {argument}")
    assert "\n" not in str(caught.value)
