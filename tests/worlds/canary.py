"""One program under the trio that is on PYTHONPATH: does its core still have what we use of it?"""

from __future__ import annotations

import sys

import trio

from tests.worlds import programs


def main() -> int:
    from vkemu import explore

    try:
        counts = [
            explore(program, backend="trio", stop_on_failure=False).executions
            for program in (programs.lost_update, programs.timeouts, programs.in_threads)
        ]
    except (AttributeError, ImportError, TypeError) as error:
        print(f"trio {trio.__version__}: {error}")
        return 1
    print(f"trio {trio.__version__}: {counts}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
