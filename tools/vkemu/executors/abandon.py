"""How a thread is ended that has not come to its end."""

from __future__ import annotations

from vkprotocol.effects import Thread


def abandon(thread: Thread) -> None:
    closed_at_most = 10  # how often a coroutine that will not end
    # A coroutine closed inside `async with lock` would await the release: it must see the
    # GeneratorExit as the end. RuntimeError is what close() says when it awaits all the same;
    # it is then where it awaits, and is closed again, or the collector would complain.
    # Whatever else its cleanup finds wrong in a half-done world is nobody's fault either.
    for _ in range(closed_at_most):
        try:
            thread.coro.close()
        except RuntimeError:
            continue
        except Exception:
            pass
        return
