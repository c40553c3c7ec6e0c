"""Targets of one's own: a condition on particles in words of the metrics, read without running it.

pt > 0.5 and 2 < production_radius < 30 and hits >= 6
"""

from __future__ import annotations

import ast
import difflib
import operator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from trackserve.errors import InputError
from trackserve.evaluate.metrics import TargetSet

if TYPE_CHECKING:
    from trackserve.event import Bool, Int64, Truth

COLUMNS = {
    "pt": "transverse momentum, GeV",
    "eta": "pseudorapidity",
    "phi": "azimuth of the momentum, rad",
    "production_radius": "distance of the production point from the beam line, mm",
    "hits": "number of hits",
    "charge": "charge, e",
    "primary": "1 for a primary particle, 0 for others",
    "vx": "production point, mm",
    "vy": "production point, mm",
    "vz": "production point, mm",
    "px": "momentum, GeV",
    "py": "momentum, GeV",
    "pz": "momentum, GeV",
}
"""What a condition may name, with units."""
LONGEST = 1000
"""A longer condition is refused."""

_COMPARISONS: dict[type[ast.cmpop], Any] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}
_ARITHMETIC: dict[type[ast.operator], Any] = {
    ast.Add: np.add,
    ast.Sub: np.subtract,
    ast.Mult: np.multiply,
    ast.Div: np.divide,
}
_ALLOWED = "comparisons, and, or, not, + - * /, numbers, abs() and brackets"


def _parsed(text: str) -> ast.expr:
    """Return a condition as a tree; raises :class:`InputError` for what is no expression."""
    if len(text) > LONGEST:
        message = f"the condition has {len(text)} characters; expected at most {LONGEST}"
        raise InputError(message)
    try:
        return ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        reason = getattr(error, "msg", type(error).__name__)
        message = f"{text!r} is no condition ({reason}); expected such as 'pt > 0.5 and hits >= 6'"
        raise InputError(message) from None


def _value(node: ast.expr, columns: dict[str, Any]) -> Any:  # noqa: PLR0911 - one for each form
    """Return what a part of a condition is for each particle: numbers, or true and false."""
    match node:
        case ast.Constant(value=int() | float() as number) if not isinstance(number, bool):
            return float(number)
        case ast.Name(id=name):
            if name in columns:
                return columns[name]
            near = difflib.get_close_matches(name.lower(), columns, n=1)
            hint = f"; is it {near[0]}?" if near else ""
            message = f"particles have no {name!r}; they have {', '.join(columns)}{hint}"
            raise InputError(message)
        case ast.BoolOp(op=joined, values=parts):
            both = np.logical_and if isinstance(joined, ast.And) else np.logical_or
            return both.reduce([_truth(part, columns) for part in parts])
        case ast.UnaryOp(op=ast.Not(), operand=part):
            return np.logical_not(_truth(part, columns))
        case ast.UnaryOp(op=ast.USub(), operand=part):
            return -_number(part, columns)
        case ast.BinOp(left=left, op=kind, right=right) if type(kind) in _ARITHMETIC:
            return _ARITHMETIC[type(kind)](_number(left, columns), _number(right, columns))
        case ast.Call(func=ast.Name(id="abs"), args=[part], keywords=[]):
            return np.abs(_number(part, columns))
        case ast.Compare(left=left, ops=kinds, comparators=rest) if all(
            type(kind) in _COMPARISONS for kind in kinds
        ):
            sides = [_number(each, columns) for each in (left, *rest)]
            steps = zip(kinds, sides, sides[1:], strict=False)
            return np.logical_and.reduce([_COMPARISONS[type(k)](a, b) for k, a, b in steps])
    message = f"{ast.unparse(node)!r} can't be part of a condition; it may have {_ALLOWED}"
    raise InputError(message)


def _number(node: ast.expr, columns: dict[str, Any]) -> Any:
    value = _value(node, columns)
    if np.asarray(value).dtype == np.bool_:
        message = f"{ast.unparse(node)!r} is true or false; expected a number"
        raise InputError(message)
    return value


def _truth(node: ast.expr, columns: dict[str, Any]) -> Any:
    value = _value(node, columns)
    if np.asarray(value).dtype != np.bool_:
        message = f"{ast.unparse(node)!r} is a number; expected a comparison, such as pt > 0.5"
        raise InputError(message)
    return value


@dataclass(frozen=True)
class OwnTargets(TargetSet):
    """The particles that meet a condition, such as ``pt > 0.5 and hits >= 6``; it is their name, too.

    Raises :class:`InputError` for what is no condition, or names what particles don't have.
    """

    min_pt: float = 0.1
    max_pt: float = np.inf
    max_eta: float = 4.0
    min_hits: int = 1
    primary: bool = False
    max_radius: float = np.inf
    own: bool = True

    def __post_init__(self) -> None:
        try:
            with np.errstate(all="ignore"):
                _truth(_parsed(self.name), dict.fromkeys(COLUMNS, np.ones(1)))
        except (RecursionError, OverflowError) as error:
            message = f"{self.name[:60]!r} is no condition ({error})"
            raise InputError(message) from None

    @property
    def definition(self) -> str:
        """The set in words."""
        return f"particles with {self.name}"

    def select(self, truth: Truth, particle_hits: Int64) -> Bool:
        """Return which particles are targets ``[P]``: those that made hits and meet the condition."""
        particles = truth.particles
        plain = ("pt", "eta", "phi", "production_radius", "vx", "vy", "vz", "px", "py", "pz")
        columns: dict[str, Any] = {name: getattr(particles, name) for name in plain}
        columns |= {"hits": particle_hits.astype(np.float64), "charge": particles.q}
        columns["primary"] = particles.primary.astype(np.float64)
        with np.errstate(all="ignore"):  # a division by 0 is infinite or nan
            chosen = _truth(_parsed(self.name), {name: columns[name] for name in COLUMNS})
        met: Bool = np.broadcast_to(chosen, particles.pt.shape) & (particle_hits > 0)
        return met
