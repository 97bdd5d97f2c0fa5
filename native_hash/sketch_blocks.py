"""LLVM code that numba cannot write itself: 32 table lookups at once, a bit mask, a prefetch.

Intrinsics, not kernels: they become part of the kernels of ``sketch_kernels.py``. Only one
instruction is of a named CPU (the byte shuffle of SSSE3 and AVX2), chosen by the features numba
itself compiles for; without it, and on other CPUs, the same integers come from plain loads.
"""

from __future__ import annotations

from typing import Any

import numba.core.cgutils
import numba.extending
from llvmlite import ir
from numba.core import types

LANES = 32

cgutils: Any = numba.core.cgutils  # numba has no types to check against
intrinsic: Any = numba.extending.intrinsic

_I8, _I16, _I32, _I64 = ir.IntType(8), ir.IntType(16), ir.IntType(32), ir.IntType(64)
_BYTES = ir.VectorType(_I8, LANES)
_FLOATS = ir.VectorType(ir.FloatType(), LANES)
_WORDS = ir.VectorType(_I16, LANES // 2)


def _splat(vector: ir.VectorType, value: int) -> Any:
    return ir.Constant(vector, [value] * vector.count)


def _indices(values: list[int]) -> Any:
    return ir.Constant(ir.VectorType(_I32, len(values)), values)


def _lookup(builder: Any, features: str, table: Any, index: Any) -> Any:
    """Entry ``index[lane]`` of a table of 16 bytes for each of 32 lanes."""
    half = ir.VectorType(_I8, 16)
    if "+ssse3" not in features and "+avx2" not in features:
        result = ir.Constant(_BYTES, ir.Undefined)
        for lane in range(LANES):
            at = builder.zext(builder.extract_element(index, ir.Constant(_I32, lane)), _I64)
            entry = builder.load(builder.gep(table, [at]))
            result = builder.insert_element(result, entry, ir.Constant(_I32, lane))
        return result
    entries = builder.load(builder.bitcast(table, half.as_pointer()), align=1)
    if "+avx2" in features:
        both = builder.shuffle_vector(entries, entries, _indices([*range(16), *range(16)]))
        shuffle = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(_BYTES, [_BYTES, _BYTES]), "llvm.x86.avx2.pshuf.b"
        )
        return builder.call(shuffle, [both, index])
    shuffle = cgutils.get_or_insert_function(
        builder.module, ir.FunctionType(half, [half, half]), "llvm.x86.ssse3.pshuf.b.128"
    )
    low = builder.shuffle_vector(index, index, _indices([*range(16)]))
    high = builder.shuffle_vector(index, index, _indices([*range(16, 32)]))
    return builder.shuffle_vector(
        builder.call(shuffle, [entries, low]),
        builder.call(shuffle, [entries, high]),
        _indices([*range(32)]),
    )


@intrinsic
def block_uppers(
    typing_context: Any,
    codes: Any,
    factors: Any,
    block: Any,
    tables: Any,
    scale: Any,
    offset: Any,
    least: Any,
    uppers: Any,
) -> Any:
    """Upper bounds of the estimates of one block, and which of them pass.

    ``uppers[r] = shift[r] + factor[r] * (scale * S[r] + offset)``, each operation rounded to
    float32 on its own, with S the sum of the table entries that the nibbles of row r name.
    Returns a mask (uint32): bit r is 1 where ``uppers[r] >= least``.

    ``codes`` uint8 ``(n_blocks, n_bytes, 32)``; ``factors`` float32 ``(n_blocks, 2, 32)``;
    ``tables`` uint8 ``(2 n_bytes, 16)``, entries at most 124; ``uppers`` float32 ``(32,)``,
    written.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        features = context.codegen().magic_tuple()[2]
        code_array, factor_array, table_array, upper_array = (
            context.make_array(signature.args[i])(context, builder, arguments[i])
            for i in (0, 1, 3, 7)
        )
        n_bytes = cgutils.unpack_tuple(builder, code_array.shape)[1]
        block_size = builder.mul(n_bytes, ir.Constant(_I64, LANES))
        start = builder.gep(code_array.data, [builder.mul(arguments[2], block_size)])
        sums = _block_sums(builder, features, start, table_array.data, n_bytes)
        pair = builder.gep(
            factor_array.data, [builder.mul(arguments[2], ir.Constant(_I64, 2 * LANES))]
        )
        factor = builder.load(builder.bitcast(pair, _FLOATS.as_pointer()), align=4)
        second = builder.gep(pair, [ir.Constant(_I64, LANES)])
        shift = builder.load(builder.bitcast(second, _FLOATS.as_pointer()), align=4)
        scale, offset, least = (_broadcast(builder, arguments[i]) for i in (4, 5, 6))
        level = builder.fadd(builder.fmul(scale, builder.uitofp(sums, _FLOATS)), offset)
        result = builder.fadd(shift, builder.fmul(factor, level))
        builder.store(result, builder.bitcast(upper_array.data, _FLOATS.as_pointer()), align=4)
        return builder.bitcast(builder.fcmp_ordered(">=", result, least), _I32)

    number = types.float32
    return (
        types.uint32(codes, factors, types.int64, tables, number, number, number, uppers),
        generate,
    )


def _block_sums(builder: Any, features: str, codes: Any, tables: Any, n_bytes: Any) -> Any:
    """Sums of table entries, ``<32 x i16>``.

    Bytes are added in pairs before they are widened; the even lanes are what remains of the
    16-bit sums when the odd ones are taken off.
    """
    every = cgutils.alloca_once_value(builder, _splat(_WORDS, 0))
    odd = cgutils.alloca_once_value(builder, _splat(_WORDS, 0))
    with cgutils.for_range(builder, n_bytes) as loop:
        at = builder.mul(loop.index, ir.Constant(_I64, LANES))
        code = builder.load(builder.bitcast(builder.gep(codes, [at]), _BYTES.as_pointer()), align=1)
        table = builder.gep(tables, [at])
        low = _lookup(builder, features, table, builder.and_(code, _splat(_BYTES, 15)))
        upper = builder.gep(table, [ir.Constant(_I64, 16)])
        high = _lookup(builder, features, upper, builder.lshr(code, _splat(_BYTES, 4)))
        words = builder.bitcast(builder.add(low, high), _WORDS)
        builder.store(builder.add(builder.load(every), words), every)
        odd_words = builder.lshr(words, _splat(_WORDS, 8))
        builder.store(builder.add(builder.load(odd), odd_words), odd)
    odds = builder.load(odd)
    evens = builder.sub(builder.load(every), builder.shl(odds, _splat(_WORDS, 8)))
    lanes = [lane // 2 + (lane % 2) * 16 for lane in range(LANES)]
    return builder.shuffle_vector(evens, odds, _indices(lanes))


def _broadcast(builder: Any, value: Any) -> Any:
    first = builder.insert_element(ir.Constant(_FLOATS, ir.Undefined), value, ir.Constant(_I32, 0))
    return builder.shuffle_vector(first, first, _indices([0] * LANES))


@intrinsic
def lowest_bit(typing_context: Any, mask: Any) -> Any:
    """Number of the lowest set bit of a uint32 that is not 0, as int64."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        place = builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 1))
        return builder.zext(place, _I64)

    return types.int64(types.uint32), generate


@intrinsic
def prefetch_row(typing_context: Any, matrix: Any, row: Any) -> Any:
    """Ask for a row of a float32 matrix (its first 512 bytes) ahead of its use."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array = context.make_array(signature.args[0])(context, builder, arguments[0])
        width = cgutils.unpack_tuple(builder, array.shape)[1]
        pointer = builder.bitcast(
            builder.gep(array.data, [builder.mul(arguments[1], width)]), _I8.as_pointer()
        )
        prefetch = cgutils.get_or_insert_function(
            builder.module,
            ir.FunctionType(ir.VoidType(), [_I8.as_pointer(), _I32, _I32, _I32]),
            "llvm.prefetch.p0",
        )
        for line in range(8):
            at = builder.gep(pointer, [ir.Constant(_I64, 64 * line)])
            builder.call(prefetch, [at, *(ir.Constant(_I32, value) for value in (0, 3, 1))])
        return context.get_dummy_value()

    return types.void(matrix, types.int64), generate
