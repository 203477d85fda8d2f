"""`vkemu run --live`: a scenario on an event loop, and then its record.

The live run notes only who took each step. The same schedule is then run again under control with
the log on, so a live run has a run folder and a token like any other, and every live run checks
that both executors do the same: if they did not, the replay would diverge.
"""

from __future__ import annotations

import sys
from argparse import Namespace

from vkemu import token
from vkemu.assemble import assemble
from vkemu.commands.run import collect_settings, report
from vkemu.controlled import StepBound
from vkemu.draw import drawn
from vkemu.live import Live, on_backend
from vkemu.live_log import LiveLog, Writer, to_stream
from vkemu.log import renderer_for
from vkemu.outcome import FAILURES, recorded
from vkemu.scenario import Scenario
from vkemu.trial import Origin, record
from vkemu.verdict import OF_VERDICT, telling


def run_live_scenario(scenario: Scenario, args: Namespace) -> int:
    scenario = drawn(scenario, scenario.seed)
    live = Live(max_steps=scenario.max_steps, record=True)
    assert live.schedule is not None
    log = None
    if args.events:
        run = f"{scenario.name}/{scenario.policy}/{scenario.seed}"
        writer = Writer(to_stream(sys.stderr))
        log = LiveLog(writer, run, live.schedule, renderer=renderer_for(sys.stderr))
    assemble(scenario, log, live)
    try:
        on_backend(args.backend, live.run)
    except (StepBound, *FAILURES):
        pass  # the record says it, with the events that led to it
    finally:
        live.close()
        if log is not None and (missing := log.close()):
            print(missing, file=sys.stderr)
    settings = collect_settings(args)
    origin = Origin(args.scenario, settings, "live", scenario.seed, token.pack(live.schedule))
    done = record(scenario, recorded(live.schedule), origin, args.runs, zstd=args.zstd)
    status = OF_VERDICT[done.outcome.verdict]
    with telling(status):
        report(done, as_json=args.json)
    return status
