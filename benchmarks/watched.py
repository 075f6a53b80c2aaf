"""A network in a search, watched: how many positions it is asked for, and how long it takes for them."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from benchmarks.harness import Case, Row


@dataclass
class Watched:
    """A network in a search, with what it is asked: positions that were read, and seconds that it took."""

    model: Any
    positions: int = 0
    seconds: float = 0.0

    def start(self, histories: Tensor) -> WatchedState:
        return WatchedState(self, self.timed(lambda: self.model.start(histories)))

    def timed(self, call: Callable[[], Any]) -> Any:
        began = time.process_time()
        result = call()
        self.seconds += time.process_time() - began
        return result


@dataclass
class WatchedState:
    """Passes every call on to the state it watches."""

    watched: Watched
    state: Any

    def first(self) -> Tensor:
        logits = self.watched.timed(self.state.first)
        self.watched.positions += len(logits)
        return logits

    def advance(self, parents: Tensor, tokens: Tensor) -> Tensor:
        self.watched.positions += tokens.numel()
        return self.watched.timed(lambda: self.state.advance(parents, tokens))

    def select(self, users: Tensor) -> WatchedState:
        return WatchedState(self.watched, self.watched.timed(lambda: self.state.select(users)))

    def forget(self, count: int) -> None:
        self.state.forget(count)


def watched_rows(case: Case, name: str, search: Callable[[Any], Any], model: Any, users: int) -> list[Row]:
    """Positions of the decoder a user, columns of no use included, and the search's own time."""
    watched = Watched(model)
    began = time.process_time()
    search(watched)
    own = time.process_time() - began - watched.seconds
    return [case.fact(f"{name}: decoder positions", watched.positions / users, "a user"),
            case.fact(f"{name}: bookkeeping beside the network", 1e3 * own / users, "ms a user")]
