"""The base of backbone plug-ins: their settings, which are listed and planned with without torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from genrec_bench.backbones.base import Backbone


class BackboneSettings:
    """Base of backbone plug-ins: frozen dataclasses with `build(vocab_size, seed) -> Backbone`.

    `check` is asked while runs are planned, before any of them starts.
    """

    name: ClassVar[str]
    version: ClassVar[int] = 1

    def check(self) -> None:
        """Refuse settings that do not fit each other. Raises: UserError."""

    def check_length(self, tokens: int) -> None:
        """Refuse sequences (history, its suffix and one semantic ID) of this many tokens. Raises: DoesNotFit."""

    def build(self, vocab_size: int, seed: int) -> Backbone:
        """A freshly initialised network; the weights depend on nothing but the settings and `seed`."""
        raise TypeError(f"{type(self).__name__} must define build")
