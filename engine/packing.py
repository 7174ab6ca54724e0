"""Matrices laid out in place as the CPU's matmul likes them.

oneDNN multiplies a few rows by a blocked matrix a third faster than by a plain one, and bit for bit the same.
The blocks take as many bytes as the plain rows, so they are written over them: one copy, the same addresses,
and whatever empties or keeps the memory does so packed or not.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Final

import torch

COLUMNS: Final = 32
"""Of a block. Pairs of neighbouring columns lie together, and all blocks of some rows in a row."""
_BLOCK_ROWS: Final = (64, 32)
"""Rows of a block: with AVX-512, and with AMX."""
_TYPICAL_BATCH = 16
"""Rows that the blocks are chosen for; any number can be multiplied."""
_CHECKED_ROWS = 256


def pack(matrix: torch.Tensor, before: torch.Tensor | None = None) -> torch.Tensor | None:
    """Lay out a contiguous bfloat16 [rows, columns] in place; its memory as oneDNN's opaque tensor, which is
    the one from ``before`` where that memory was packed already, since torch never lets go of such a tensor.
    None, and the matrix as it was, where packing would take other bytes or leave rows that cannot be read."""
    return _pack(matrix, block_rows(), before)


def packed_rows(packed: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """Rows of a matrix that is packed, [ids, columns]."""
    return _rows_of_blocks(packed, ids, block_rows())


def can_pack() -> bool:
    """Whether this torch and this CPU have what packing takes, shown on a small matrix."""
    return block_rows() > 0


@cache
def block_rows() -> int:
    """Rows of a block as this CPU's kernels like them; 0: nothing can be packed here."""
    try:
        return next((rows for rows in _BLOCK_ROWS if _packs_by(rows)), 0)
    except (AttributeError, OSError, RuntimeError):
        return 0


def multiply(x: torch.Tensor, blocks: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """x [rows, in] by what ``pack`` made of a [out, in] → [rows, out]."""
    product: torch.Tensor = _kernels()(x, blocks, bias, "none", [], "")
    return product


@cache
def _kernels() -> Callable[..., torch.Tensor]:
    overload: Callable[..., torch.Tensor] = torch.ops.mkldnn._linear_pointwise.default
    return overload


def _packs_by(rows: int) -> bool:
    """Whether a matrix comes out in blocks of so many rows, and is multiplied as if it were plain."""
    matrix = torch.arange(2 * rows * COLUMNS).view(2 * rows, COLUMNS).bfloat16()
    x = torch.ones(3, COLUMNS, dtype=torch.bfloat16)
    plain = torch.nn.functional.linear(x, matrix)
    blocks = _pack(matrix, rows)
    return blocks is not None and torch.equal(multiply(x, blocks, None), plain)


def _pack(matrix: torch.Tensor, rows: int, before: torch.Tensor | None = None) -> torch.Tensor | None:
    blocks = torch.ops.mkldnn._reorder_linear_weight(matrix, _TYPICAL_BATCH)
    address, nbytes = torch.ops.mkldnn.data_ptr(blocks), torch.ops.mkldnn._nbytes(blocks)
    if nbytes != matrix.nbytes or not _same_rows(matrix, address, rows):
        return None
    if before is None:
        before = _opaque_over(matrix, torch.ops.mkldnn._get_mkldnn_serialized_md(blocks))
    ctypes.memmove(matrix.data_ptr(), address, nbytes)
    return before


def _rows_of_blocks(packed: torch.Tensor, ids: torch.Tensor, rows: int) -> torch.Tensor:
    shape = packed.shape
    blocks = packed.view(shape[0] // rows, shape[1] // COLUMNS, COLUMNS // 2, rows, 2)
    return blocks[ids // rows, :, :, ids % rows].reshape(*ids.shape, shape[1])


def _same_rows(plain: torch.Tensor, address: int, rows: int) -> bool:
    """Whether what is at ``address`` are the blocks, of so many rows each."""
    memory = (ctypes.c_char * plain.nbytes).from_address(address)
    packed = torch.frombuffer(memory, dtype=plain.dtype).view(plain.shape)
    ids = torch.linspace(0, plain.shape[0] - 1, min(_CHECKED_ROWS, plain.shape[0])).long()
    return torch.equal(_rows_of_blocks(packed, ids, rows), plain[ids])


def _opaque_over(matrix: torch.Tensor, metadata: torch.Tensor) -> torch.Tensor:
    """An opaque oneDNN tensor over the memory of ``matrix``, by the C interface that torch keeps stable for
    ahead-of-time compiled models."""
    torch_cpu = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"))
    dims = matrix.ndim
    layout = (ctypes.c_uint8 * metadata.numel()).from_buffer_copy(metadata.numpy().tobytes())
    handle = ctypes.c_void_p()
    failed = torch_cpu.aoti_torch_create_tensor_from_blob_v2(
        ctypes.c_void_p(matrix.data_ptr()),
        ctypes.c_int64(dims),
        (ctypes.c_int64 * dims)(*matrix.shape),
        (ctypes.c_int64 * dims)(*matrix.stride()),
        ctypes.c_int64(0),
        torch_cpu.aoti_torch_dtype_bfloat16(),
        torch_cpu.aoti_torch_device_type_cpu(),
        0,
        ctypes.byref(handle),
        torch_cpu.aoti_torch_layout__mkldnn(),
        layout,
        ctypes.c_int64(metadata.numel()),
    )
    if failed:
        raise RuntimeError("torch refused a oneDNN tensor over given memory")
    capsule = ctypes.pythonapi.PyCapsule_New
    capsule.restype, capsule.argtypes = ctypes.py_object, [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
    return torch._C._aoti.alloc_tensor_by_stealing_from_void_ptr(capsule(handle, None, None))
