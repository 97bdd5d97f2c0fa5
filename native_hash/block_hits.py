"""Estimated scores of sixteen rows at a time, or of one, as LLVM vector instructions.

Plain numba loops over int8 gave a third of the speed. The instructions are generic: every CPU
computes the same integers, ``code_reference.block_estimates`` gives them in numpy.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from native_hash.code_layout import BLOCK_ROWS

_LINE_BYTES = 64
_PREFETCH_BYTES = 4096  # ahead of the codes being read; 100,000 rows take half the time of none
_UNROLLED_PAIRS = 4  # code_layout pads the dimension to a multiple of these pairs
_I8, _I16, _I32, _I64 = (ir.IntType(bits) for bits in (8, 16, 32, 64))
_F32 = ir.FloatType()
_BYTES = _I8.as_pointer()
_INTEGERS, _FLOATS = ir.VectorType(_I32, BLOCK_ROWS), ir.VectorType(_F32, BLOCK_ROWS)
_WIDE, _SHORTS = ir.VectorType(_I32, 2 * BLOCK_ROWS), ir.VectorType(_I16, 2 * BLOCK_ROWS)


def _prefetch(builder: Any, pointer: Any) -> None:
    """Ask for a cache line that will be read soon; harmless at any address."""
    kind = ir.FunctionType(ir.VoidType(), [_BYTES, _I32, _I32, _I32])
    function: Any = cgutils.get_or_insert_function(  # type: ignore[no-untyped-call]
        builder.module, kind, "llvm.prefetch.p0"
    )
    flags = [ir.Constant(_I32, value) for value in (0, 3, 1)]  # to read, keep, data
    builder.call(function, [builder.bitcast(pointer, _BYTES), *flags])


@intrinsic
def _prefetch_rows(typing_context: Any, matrix: Any, row: Any) -> Any:
    """Ask for the cache lines of one row of a matrix ``(n, d)`` of any dtype."""
    signature = types.void(matrix, types.intp)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array = context.make_array(signature.args[0])(context, builder, arguments[0])
        n_bytes = builder.extract_value(array.strides, 0)
        start = builder.bitcast(array.data, _BYTES)
        first = builder.mul(arguments[1], n_bytes)
        with cgutils.for_range_slice(
            builder, ir.Constant(_I64, 0), n_bytes, ir.Constant(_I64, _LINE_BYTES), _I64
        ) as (place, _):
            _prefetch(builder, builder.gep(start, [builder.add(first, place)]))
        return context.get_dummy_value()

    return signature, generate


prefetch_row: Any = _prefetch_rows


def _array(context: Any, builder: Any, signature: Any, arguments: Any, i: int) -> Any:
    return context.make_array(signature.args[i])(context, builder, arguments[i])


def _load(builder: Any, pointer: Any, kind: Any, align: int) -> Any:
    return builder.load(builder.bitcast(pointer, kind.as_pointer()), align=align)


def _splat(builder: Any, value: Any, kind: Any) -> Any:
    undefined = ir.Constant(kind, ir.Undefined)
    single = builder.insert_element(undefined, value, ir.Constant(_I32, 0))
    return builder.shuffle_vector(single, undefined, ir.Constant(_INTEGERS, None))


def _count(value: int) -> Any:
    return ir.Constant(_I64, value)


def _pair_sums(builder: Any, rows: Any, query: Any) -> Any:
    """Products of two ``<32 x i16>`` or ``<32 x i8>`` in int32, neighbors added, ``<16 x i32>``.

    LLVM makes one multiply-add instruction (pmaddwd) of this on x86.
    """
    even = ir.Constant(_INTEGERS, list(range(0, 2 * BLOCK_ROWS, 2)))
    odd = ir.Constant(_INTEGERS, list(range(1, 2 * BLOCK_ROWS, 2)))
    products = builder.mul(builder.sext(rows, _WIDE), builder.sext(query, _WIDE))
    return builder.add(
        builder.shuffle_vector(products, products, even),
        builder.shuffle_vector(products, products, odd),
    )


def _block_dots(
    builder: Any, block: Any, query: Any, n_pairs: Any, kind: Any, prefetched_bytes: int
) -> Any:
    """Dot products of the 16 rows of a block with a query, ``<16 x float>``.

    ``block`` points to ``(n_pairs, BLOCK_ROWS, 2)`` integers of ``kind``, ``query`` to int16
    ``(2 n_pairs,)``; ``n_pairs`` is a multiple of four. Ends in a new block of instructions.
    """
    before = builder.block
    loop = builder.append_basic_block("pairs")
    after = builder.append_basic_block("bounds")
    builder.branch(loop)
    builder.position_at_end(loop)
    pair = builder.phi(_I64)
    pair.add_incoming(_count(0), before)
    sums = [builder.phi(_INTEGERS) for _ in range(4)]  # chains hide the latency of the adder
    for total in sums:
        total.add_incoming(ir.Constant(_INTEGERS, None), before)
    totals = list(sums)
    if prefetched_bytes:
        for line in range(_UNROLLED_PAIRS * 2 * BLOCK_ROWS // _LINE_BYTES):
            ahead = builder.mul(pair, _count(2 * BLOCK_ROWS))
            ahead = builder.add(ahead, _count(prefetched_bytes + line * _LINE_BYTES))
            _prefetch(builder, builder.gep(block, [ahead]))
    for step in range(_UNROLLED_PAIRS):
        here = builder.add(pair, _count(step))
        place = builder.gep(block, [builder.mul(here, _count(2 * BLOCK_ROWS))])
        rows = _load(builder, place, ir.VectorType(kind, 2 * BLOCK_ROWS), 1)
        values = _load(builder, builder.gep(query, [builder.mul(here, _count(2))]), _I32, 2)
        codes = builder.bitcast(_splat(builder, values, _INTEGERS), _SHORTS)
        totals[step] = builder.add(totals[step], _pair_sums(builder, rows, codes))
    following = builder.add(pair, _count(_UNROLLED_PAIRS))
    pair.add_incoming(following, loop)
    for total, value in zip(sums, totals, strict=True):
        total.add_incoming(value, loop)
    builder.cbranch(builder.icmp_signed("<", following, n_pairs), loop, after)
    builder.position_at_end(after)
    return builder.sitofp(builder.add(builder.add(*totals[:2]), builder.add(*totals[2:])), _FLOATS)


def _mask(builder: Any, values: Any, least: Any) -> Any:
    """Bit r of the int32 is 1 where ``values[r] >= least``."""
    is_hit = builder.fcmp_ordered(">=", values, _splat(builder, least, _FLOATS))
    return builder.zext(builder.bitcast(is_hit, ir.IntType(BLOCK_ROWS)), _I32)


@intrinsic
def _block_hits(
    typing_context: Any,
    codes: Any,
    block: Any,
    query_codes: Any,
    scales: Any,
    errors: Any,
    query_scale: Any,
    spread: Any,
    cutoff: Any,
    estimates: Any,
) -> Any:
    """Estimate the scores of one block of rows; tell which may reach the cutoff.

    ``codes`` int8 ``(n_blocks, n_pairs, BLOCK_ROWS, 2)``, ``query_codes`` int16 ``(2 n_pairs,)``,
    ``scales`` and ``errors`` float32 ``(n_blocks * BLOCK_ROWS,)``. Row r of the block:
    ``estimate = dot(codes, query_codes) * (scale * query_scale)``, written to ``estimates``; bit
    r of the int32 result is ``estimate + error * spread >= cutoff``.
    """
    signature = types.int32(
        codes, types.intp, query_codes, scales, errors,
        types.float32, types.float32, types.float32, estimates,
    )  # fmt: skip

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        def array(i: int) -> Any:
            return _array(context, builder, signature, arguments, i)

        code_array = array(0)
        n_pairs = builder.extract_value(code_array.shape, 1)
        first = builder.mul(arguments[1], builder.mul(n_pairs, _count(2 * BLOCK_ROWS)))
        dots = _block_dots(
            builder, builder.gep(code_array.data, [first]), array(2).data, n_pairs, _I8,
            _PREFETCH_BYTES,
        )  # fmt: skip
        row = builder.mul(arguments[1], _count(BLOCK_ROWS))
        scale = _load(builder, builder.gep(array(3).data, [row]), _FLOATS, 4)
        error = _load(builder, builder.gep(array(4).data, [row]), _FLOATS, 4)
        factor = builder.fmul(scale, _splat(builder, arguments[5], _FLOATS))
        estimate = builder.fmul(dots, factor)
        output = builder.bitcast(array(8).data, _FLOATS.as_pointer())
        builder.store(estimate, output, align=4)
        doubt = builder.fmul(error, _splat(builder, arguments[6], _FLOATS))
        return _mask(builder, builder.fadd(estimate, doubt), arguments[7])

    return signature, generate


@intrinsic
def _head_hits(
    typing_context: Any, heads: Any, block: Any, query_codes: Any, scale: Any, least: Any
) -> Any:
    """Which rows of a block have ``dot(head, query_codes) * scale >= least``, bit by bit.

    ``heads`` int16 ``(n_blocks, n_pairs, BLOCK_ROWS, 2)``.
    """
    signature = types.int32(heads, types.intp, query_codes, types.float32, types.float32)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        dots = _head_dots(context, builder, signature, arguments)
        value = builder.fmul(dots, _splat(builder, arguments[3], _FLOATS))
        return _mask(builder, value, arguments[4])

    return signature, generate


@intrinsic
def _ball_hits(
    typing_context: Any,
    heads: Any,
    block: Any,
    query_codes: Any,
    radii: Any,
    shifts: Any,
    scale: Any,
    reach: Any,
    least: Any,
    values: Any,
) -> Any:
    """As ``head_hits`` for the balls of a block: ``(dot * scale + shift) + reach * radius``.

    ``radii`` and ``shifts`` float32 ``(n_blocks * BLOCK_ROWS,)``; ``dot * scale + shift`` is
    written to ``values``, float32 ``(BLOCK_ROWS,)``.
    """
    number = types.float32
    signature = types.int32(
        heads, types.intp, query_codes, radii, shifts, number, number, number, values
    )

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        def part(i: int) -> Any:
            data = _array(context, builder, signature, arguments, i).data
            return _load(builder, builder.gep(data, [place]), _FLOATS, 4)

        dots = _head_dots(context, builder, signature, arguments)
        place = builder.mul(arguments[1], _count(BLOCK_ROWS))
        value = builder.fmul(dots, _splat(builder, arguments[5], _FLOATS))
        value = builder.fadd(value, part(4))
        output = _array(context, builder, signature, arguments, 8).data
        builder.store(value, builder.bitcast(output, _FLOATS.as_pointer()), align=4)
        room = builder.fmul(part(3), _splat(builder, arguments[6], _FLOATS))
        return _mask(builder, builder.fadd(value, room), arguments[7])

    return signature, generate


def _head_dots(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    heads = _array(context, builder, signature, arguments, 0)
    query = _array(context, builder, signature, arguments, 2).data
    n_pairs = builder.extract_value(heads.shape, 1)
    first = builder.mul(arguments[1], builder.mul(n_pairs, _count(2 * BLOCK_ROWS)))
    return _block_dots(builder, builder.gep(heads.data, [first]), query, n_pairs, _I16, 0)


@intrinsic
def _row_dot(typing_context: Any, codes: Any, row: Any, query_codes: Any) -> Any:
    """Dot product of one row of codes int8 ``(n, d)`` with int16 ``(d,)``, d a multiple of 64."""
    signature = types.int32(codes, types.intp, query_codes)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        matrix = _array(context, builder, signature, arguments, 0)
        query = _array(context, builder, signature, arguments, 2).data
        width = builder.extract_value(matrix.shape, 1)
        start = builder.gep(matrix.data, [builder.mul(arguments[1], width)])
        before = builder.block
        loop = builder.append_basic_block("values")
        after = builder.append_basic_block("total")
        builder.branch(loop)
        builder.position_at_end(loop)
        at = builder.phi(_I64)
        at.add_incoming(_count(0), before)
        sums = [builder.phi(_INTEGERS) for _ in range(2)]
        totals = []
        for half, total in enumerate(sums):
            total.add_incoming(ir.Constant(_INTEGERS, None), before)
            here = builder.add(at, _count(half * 2 * BLOCK_ROWS))
            rows = _load(builder, builder.gep(start, [here]), ir.VectorType(_I8, 32), 1)
            values = _load(builder, builder.gep(query, [here]), _SHORTS, 2)
            totals.append(builder.add(total, _pair_sums(builder, rows, values)))
        following = builder.add(at, _count(4 * BLOCK_ROWS))
        at.add_incoming(following, loop)
        for total, value in zip(sums, totals, strict=True):
            total.add_incoming(value, loop)
        builder.cbranch(builder.icmp_signed("<", following, width), loop, after)
        builder.position_at_end(after)
        total = builder.add(*totals)
        for size in (8, 4, 2, 1):
            kind = ir.VectorType(_I32, size)
            halves = [ir.Constant(kind, list(range(s, s + size))) for s in (0, size)]
            total = builder.add(*(builder.shuffle_vector(total, total, h) for h in halves))
        return builder.extract_element(total, ir.Constant(_I32, 0))

    return signature, generate


@intrinsic
def _lowest_bit(typing_context: Any, mask: Any) -> Any:
    """Number of the lowest set bit of an int32 that is not 0."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.zext(builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 1)), _I64)

    return types.int64(types.int32), generate


block_hits: Any = _block_hits
head_hits: Any = _head_hits
ball_hits: Any = _ball_hits
row_dot: Any = _row_dot
lowest_bit: Any = _lowest_bit
