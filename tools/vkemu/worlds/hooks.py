"""Names of other modules replaced, for as long as a search lasts."""

from __future__ import annotations

from typing import Any


class Hooks:
    def __init__(self) -> None:
        self.replaced: list[tuple[Any, str, Any]] = []

    def replace(self, owner: Any, name: str, new: Any) -> Any:
        """Put `new` there; what was there. AttributeError, which names it, when nothing was."""
        try:
            old = vars(owner)[name]
        except KeyError:
            where = getattr(owner, "__qualname__", owner.__name__)
            raise AttributeError(
                f"{getattr(owner, '__module__', '')} {where}.{name}: moved in this release"
            ) from None
        self.replaced.append((owner, name, old))
        setattr(owner, name, new)
        if isinstance(old, classmethod | staticmethod):
            return old.__get__(None, owner)
        return old

    def add(self, owner: type, name: str, new: Any) -> None:
        """Put `new` where a class inherits what it has."""
        self.replaced.append((owner, name, vars(owner).get(name, getattr(owner, name))))
        setattr(owner, name, new)

    def remove(self) -> None:
        while self.replaced:
            owner, name, old = self.replaced.pop()
            setattr(owner, name, old)
