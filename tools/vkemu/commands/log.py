"""`vkemu log`: show, query, draw and export the events of a run."""

from __future__ import annotations

import argparse
import shutil
import sys
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vkemu.commands.arguments import count, names, positive, whole
from vkemu.verdict import OF_VERDICT, Status, UsageError, telling

if TYPE_CHECKING:
    from rich.console import Console

    from vkemu.inspect.filter import Filter
    from vkemu.inspect.reader import Log

LATEST = "runs/latest"
FILTER = "FIELD=VALUE; also != < <= > >= ~ (contains), globs and a,b: event=page.* pfn=12 t>=1000"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    about: list[tuple[str, str]] = [
        ("show", "the events, filtered by any field"),
        ("query", "SQL over the table `events`"),
        ("windows", "every window between an edit and what makes it harmless, and its width"),
        ("timeline", "one column an actor"),
        ("stats", "what happened how often"),
        ("diff", "where two runs part"),
        ("check", "the oracle over a recorded log"),
        ("export", "for other viewers"),
        ("shipped", "where the lnav format and the jq recipes are"),
    ]
    what = parser.add_subparsers(dest="what", metavar="COMMAND", required=True)
    parsers = {name: what.add_parser(name, help=text, description=text) for name, text in about}
    for name in ("show", "windows", "timeline", "stats", "export", "check", "query"):
        parsers[name].add_argument(
            "log", nargs="?", default=LATEST, help=f"run folder, .ndjson or .zst ({LATEST})"
        )
    parsers["diff"].add_argument("a", help="a run folder or log")
    parsers["diff"].add_argument("b", help="another")
    parsers["diff"].add_argument("--context", type=count, default=5, metavar="N")
    for name in ("show", "timeline", "export"):
        parsers[name].add_argument("terms", nargs="*", metavar="FILTER", help=FILTER)
    for name in ("show", "windows", "timeline", "stats", "export", "check", "diff"):
        parsers[name].add_argument(
            "--skip-malformed", action="store_true", help="leave out lines that are no events"
        )
    for tool, file in (("jq", "jq/vkemu.jq"), ("lnav", "lnav/vkemu_log.json")):
        parsers["shipped"].add_argument(
            f"--{tool}", dest="directory", action="store_const", const=file,
            help=f"only the directory of {tool}'s",
        )  # fmt: skip
    _add_show(parsers["show"])
    parsers["query"].add_argument("sql", help="SELECT ... FROM events ...")
    parsers["query"].add_argument("--csv", action="store_true", help="comma-separated values")
    parsers["windows"].add_argument("--worst", type=count, default=3, metavar="N", help="(3)")
    parsers["windows"].add_argument("--json", action="store_true", help="one window a line")
    parsers["stats"].add_argument("--json", action="store_true")
    parsers["check"].add_argument("--json", action="store_true")
    parsers["check"].add_argument("--checks", type=names, help="comma-separated (those of the run)")
    parsers["timeline"].add_argument("--width", type=whole(20, 10_000), metavar="COLUMNS")
    parsers["timeline"].add_argument(
        "--limit", type=positive, default=1000, metavar="N", help="(1000)"
    )
    parsers["export"].add_argument(
        "--format", required=True, choices=("perfetto", "chrome", "shiviz", "mermaid")
    )
    parsers["export"].add_argument("-o", "--output", metavar="FILE", help="(standard output)")


def _add_show(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--columns", type=names, help="comma-separated fields; `text` is the event in words"
    )
    parser.add_argument("--color", choices=("auto", "always", "never"), default="auto")
    parser.add_argument("--follow", "-f", action="store_true", help="wait for more at the end")
    parser.add_argument("--first", "-n", type=count, metavar="N", help="at most the first N")
    parser.add_argument("--last", type=count, metavar="N", help="at most the last N")
    parser.add_argument("--json", action="store_true", help="the lines as they are in the log")


def run(args: argparse.Namespace) -> int:
    commands = {
        "show": show, "query": query, "windows": windows, "timeline": timeline, "stats": stats,
        "diff": diff, "check": check, "export": export, "shipped": shipped,
    }  # fmt: skip
    return int(commands[args.what](args))


def _open(args: argparse.Namespace) -> tuple[Log, Filter]:
    """The log and the filter; the log may have been left out before the first term."""
    from vkemu.inspect.filter import Filter
    from vkemu.inspect.reader import Log

    terms = list(getattr(args, "terms", []))
    name = args.log
    if any(sign in name for sign in "=<>~") and not Path(name).exists():
        terms.insert(0, name)
        name = LATEST
    chosen = Filter(terms)
    for note in chosen.unknown_fields():
        print(f"note: {note}", file=sys.stderr)
    return Log(name, skip_malformed=args.skip_malformed), chosen


def _told(log: Log) -> int:
    """Say what was left out."""
    if log.cut:
        print(f"{log.path}: {log.cut}", file=sys.stderr)
    if log.skipped:
        print(f"{log.path}: {log.skipped} malformed lines left out", file=sys.stderr)
    return Status.PASS


def _console(color: str) -> Console:
    from rich.console import Console

    class Piped(Console):
        def on_broken_pipe(self) -> None:
            """rich would exit with 1, which says that there is a violation."""
            raise BrokenPipeError

    forced = {"always": True, "never": False, "auto": None}[color]
    return Piped(
        force_terminal=forced, no_color=color == "never", highlight=False, markup=False, emoji=False
    )


def show(args: argparse.Namespace) -> int:
    from rich.text import Text

    from vkemu.inspect import show as view

    log, terms = _open(args)
    columns = args.columns or list(view.COLUMNS)
    console = _console(args.color)
    if not args.follow and not args.json:
        view.show(log, terms, console, columns, first=args.first, last=args.last)
        return _told(log)
    events = view.selected(log, terms, args.first, args.last)
    if args.follow:
        events = iter(islice(view.follow(log, terms), args.first))
    if args.json:
        import orjson

        for event in events:
            sys.stdout.buffer.write(orjson.dumps(event, option=orjson.OPT_APPEND_NEWLINE))
            if args.follow:
                sys.stdout.buffer.flush()
        sys.stdout.buffer.flush()
    else:
        for event in events:
            row = view.row(event, view.numbered(columns, event))
            console.print(Text(row, style=view.style(event)), soft_wrap=True)
    return _told(log)


def query(args: argparse.Namespace) -> int:
    from vkemu.inspect.query import query as ask
    from vkemu.inspect.reader import locate

    if args.log != LATEST and not Path(args.log).exists() and " " in args.log:
        raise UsageError("vkemu log query: expected LOG and then SQL")
    names, rows = ask(locate(args.log), args.sql)
    if args.csv:
        import csv

        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(names)
        writer.writerows(rows)
        return Status.PASS
    from rich.table import Table

    table = Table(*names, box=None, pad_edge=False)
    for row in rows:
        table.add_row(*("" if value is None else str(value) for value in row))
    _console("auto").print(table)
    return Status.PASS


def windows(args: argparse.Namespace) -> int:
    from vkemu.inspect.window_report import Report, of_failure
    from vkemu.inspect.windows import find

    log, _ = _open(args)
    if args.json:
        import msgspec

        find(log, lambda window: print(msgspec.json.encode(window).decode()))
        return _told(log)
    report = Report(args.worst)
    finder = find(log, report.add)
    failed = of_failure(log.path)
    if failed:
        print(f"{failed}\n")
    print(report)
    if finder.gaps:
        places = f"{finder.gaps} place{'s' * (finder.gaps > 1)}"
        which = f"{finder.cut} open window{'s' * (finder.cut != 1)}"
        print(f"\nevents were dropped at {places}: {which} left out")
    return _told(log)


def timeline(args: argparse.Namespace) -> int:
    from vkemu.inspect.timeline import timeline as draw

    log, terms = _open(args)
    events: list[Any] = []
    for event in terms.events(log):
        events.append(event)
        if len(events) > args.limit:
            print(f"the first {args.limit} of more events (--limit)", file=sys.stderr)
            events.pop()
            break
    width = args.width or (shutil.get_terminal_size().columns if sys.stdout.isatty() else 120)
    for row in draw(events, width):
        print(row)
    return _told(log)


def stats(args: argparse.Namespace) -> int:
    from vkemu.inspect import stats as count

    log, _ = _open(args)
    found = count.stats(log)
    if args.json:
        import orjson

        print(orjson.dumps(found.as_dict(), option=orjson.OPT_INDENT_2).decode())
    else:
        print(count.report(found))
    return _told(log)


def diff(args: argparse.Namespace) -> int:
    from vkemu.inspect import diff as compare
    from vkemu.inspect.reader import Log

    a = Log(args.a, skip_malformed=args.skip_malformed)
    b = Log(args.b, skip_malformed=args.skip_malformed)
    found = compare.first_difference(a, b, args.context)
    if found is None:
        print("the runs are equal")
        return _told(a) or _told(b)
    with telling(Status.VIOLATION):
        print(compare.report(found, a, b))
    _told(a)
    _told(b)
    return Status.VIOLATION


def check(args: argparse.Namespace) -> int:
    from vkemu.inspect import check as offline

    log, _ = _open(args)
    found = offline.check(log, args.checks)
    _told(log)
    status = OF_VERDICT[found.verdict]
    with telling(status):
        print(offline.report_json(found) if args.json else offline.report(found, log))
    return status


def export(args: argparse.Namespace) -> int:
    from vkemu.inspect.export import FORMATS

    log, terms = _open(args)
    write = FORMATS[args.format]
    if args.output is None:
        write(terms.events(log), sys.stdout.buffer)
        sys.stdout.buffer.flush()
    else:
        with Path(args.output).open("wb") as out:
            write(terms.events(log), out)
    return _told(log)


def shipped(args: argparse.Namespace) -> int:
    from vkemu.inspect.shipped import FILES, path

    if args.directory:
        print(path(args.directory).parent)
        return Status.PASS
    for name, what in FILES.items():
        print(f"{path(name)}\n    {what}")
    return Status.PASS
