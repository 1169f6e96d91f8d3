"""Sixteen float32 numbers as one value of numba's compiled code: an AVX-512 register, or several smaller ones.

They are LLVM vectors, because a loop over single numbers becomes one over registers only while the compiler can
prove much about it. Arrays are given by their address, because numba counts references of arrays in every loop.
Numba's cache notices changes of the caller's file only: after a change here, change `fused` too.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic, lower_builtin, models, register_model, type_callable

LANES = 16
_FLOATS = ir.VectorType(ir.FloatType(), LANES)
_DOUBLES = ir.VectorType(ir.DoubleType(), LANES)


class _Floats(types.Type):
    def __init__(self) -> None:
        super().__init__(name="Floats")


class _Doubles(types.Type):
    def __init__(self) -> None:
        super().__init__(name="Doubles")


floats, doubles = _Floats(), _Doubles()


@register_model(_Floats)
class _FloatsModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, _FLOATS)


@register_model(_Doubles)
class _DoublesModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, _DOUBLES)


def _operator(symbol: Any, kind: types.Type, instruction: str) -> None:
    @type_callable(symbol)
    def typed(context: Any) -> Any:
        return lambda a, b: kind if a == kind and b == kind else None

    @lower_builtin(symbol, kind, kind)
    def lowered(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return getattr(builder, instruction)(*args)


_operator(operator.add, floats, "fadd")
_operator(operator.mul, floats, "fmul")
_operator(operator.truediv, floats, "fdiv")
_operator(operator.add, doubles, "fadd")


def _operation(typed: Callable[..., Any]) -> Any:
    """An intrinsic, called without the typing context."""
    return intrinsic(typed)


def _pointer(builder: Any, address: Any, index: Any) -> Any:
    start = builder.inttoptr(address, ir.FloatType().as_pointer())
    return builder.bitcast(builder.gep(start, [index]), _FLOATS.as_pointer())


def _load(builder: Any, address: Any, index: Any) -> Any:
    value = builder.load(_pointer(builder, address, index))
    value.align = 4
    return value


def _picked(builder: Any, a: Any, b: Any, places: Sequence[int]) -> Any:
    """The numbers at these places of `a` followed by `b`."""
    return builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(ir.IntType(32), len(places)), list(places)))


def _splat(builder: Any, number: Any) -> Any:
    nothing = ir.Constant(_FLOATS, ir.Undefined)
    first = builder.insert_element(nothing, number, ir.Constant(ir.IntType(32), 0))
    return _picked(builder, first, nothing, [0] * LANES)


def _plus_product(builder: Any, a: Any, b: Any, c: Any) -> Any:
    """a + b c, rounded once where the processor can."""
    kind = ir.FunctionType(_FLOATS, [_FLOATS] * 3)
    function = cgutils.get_or_insert_function(builder.module, kind, f"llvm.fmuladd.v{LANES}f32")
    return builder.call(function, [b, c, a])


def _weighted(builder: Any, values: Sequence[Any], weights: Sequence[Any]) -> Any:
    total = builder.fmul(values[0], _splat(builder, weights[0]))
    for value, weight in zip(values[1:], weights[1:], strict=True):
        total = _plus_product(builder, total, value, _splat(builder, weight))
    return total


@_operation
def load(context: Any, address: Any, index: Any) -> Any:
    """float32 `[index : index + LANES]` of the array at `address`."""
    return floats(types.intp, types.intp), lambda context, builder, signature, args: _load(builder, *args)


@_operation
def store(context: Any, address: Any, index: Any, value: Any) -> Any:
    """`load`'s counterpart."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        builder.store(args[2], _pointer(builder, args[0], args[1])).align = 4
        return context.get_dummy_value()

    return types.void(types.intp, types.intp, floats), generate


@_operation
def splat(context: Any, number: Any) -> Any:
    """One float32 in every lane."""
    return floats(types.float32), lambda context, builder, signature, args: _splat(builder, args[0])


@_operation
def widened(context: Any, value: Any) -> Any:
    """The same numbers in float64."""
    return doubles(floats), lambda context, builder, signature, args: builder.fpext(args[0], _DOUBLES)


@_operation
def minus_product(context: Any, a: Any, b: Any, c: Any) -> Any:
    """a - b c, rounded once where the processor can."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _plus_product(builder, args[0], builder.fneg(args[1]), args[2])

    return floats(floats, floats, floats), generate


@_operation
def summed(context: Any, value: Any) -> Any:
    """The sum of all lanes."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        total, size = args[0], LANES
        while size > 1:
            size //= 2
            nothing = ir.Constant(total.type, ir.Undefined)
            halves = [_picked(builder, total, nothing, range(at, at + size)) for at in (0, size)]
            total = builder.fadd(*halves)
        return builder.extract_element(total, ir.Constant(ir.IntType(32), 0))

    return types.float64(doubles), generate


@_operation
def along(context: Any, value: Any, following: Any, weights: Any) -> Any:
    """Each lane and its successors, weighted and summed; `following` holds the successors of the last lanes."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        value, following, packed = args
        taps = signature.args[2].count
        moved = [_picked(builder, value, following, range(tap, tap + LANES)) for tap in range(1, taps)]
        return _weighted(builder, [value, *moved], cgutils.unpack_tuple(builder, packed, taps))

    return floats(floats, floats, weights), generate


@_operation
def across(context: Any, address: Any, index: Any, stride: Any, weights: Any) -> Any:
    """What lies at `index`, `index + stride`, and so on, weighted and summed."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        address, index, stride, packed = args
        values = []
        for _ in range(signature.args[3].count):
            values.append(_load(builder, address, index))
            index = builder.add(index, stride)
        return _weighted(builder, values, cgutils.unpack_tuple(builder, packed, len(values)))

    return floats(types.intp, types.intp, types.intp, weights), generate
