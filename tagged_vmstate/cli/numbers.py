"""Numbers among the options."""

from __future__ import annotations

import math
from typing import Any, Final

import click
from typing_extensions import override

from tagged_vmstate.wiretype import brief

_MOST: Final = 40
"""Characters of any number that makes sense; Python refuses to convert very long ones, and nobody reads them in a message."""


class Integer(click.IntRange):
    """An integer, perhaps within a range."""

    @override
    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if len(str(value)) > _MOST:
            self.fail(f"{brief(value)} is too long for an integer.", param, ctx)
        return super().convert(value, param, ctx)


class Seconds(click.FloatRange):
    """A time, perhaps within a range."""

    @override
    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        found = super().convert(value, param, ctx)
        if math.isnan(found):
            self.fail(f"{value} is no time.", param, ctx)
        return found
