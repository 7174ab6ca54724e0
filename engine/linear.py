"""Linear layers, whose weights may be laid out in place as the CPU's matmul likes them.

oneDNN multiplies a few rows by a blocked matrix a third faster than by a plain one, and bit for bit the same.
The blocks take as many bytes as the plain rows, so they are written over them: one copy, the same addresses,
and whatever empties or keeps the weights' memory does so packed or not. A refilled arena is plain again.
"""

from __future__ import annotations

import ctypes
import logging
from collections.abc import Callable
from functools import cache
from pathlib import Path

import torch
from torch.nn.functional import linear, pad

from engine.memory.cpu import round_up
from engine.memory.system import system
from engine.types import OutOfMemory

_ROWS, _COLUMNS = 64, 32
"""Rows and columns of a block, of which pairs of columns lie together."""
_CHECKED_ROWS = 256
_LONGEST_LONE = 2048
"""Columns to which a lone row's sums were found to be those of a row among others."""
_TYPICAL_BATCH = 16
"""Rows that the blocks are chosen for; any number can be multiplied."""

log = logging.getLogger("dormouse.engine")

_blocked_linear: Callable[..., torch.Tensor] = getattr(torch.ops.mkldnn, "_linear_pointwise", linear)


class Linear:
    """x [rows, in] → [rows, out] by a weight [out, in], a view of the weights' arena, and maybe a bias."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None = None) -> None:
        self.weight = weight
        self.bias = bias
        self.packed = False
        self._refused = False
        """Packing it has failed, and would again."""
        self._blocks: torch.Tensor | None = None
        """The weight's memory as oneDNN's opaque tensor; made once, since address and format stay."""

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        rows = len(x)
        padded = _padded(rows, lone=x.shape[1] <= _LONGEST_LONE and x.dtype != torch.float16)
        return self._multiply(x if padded == rows else pad(x, (0, 0, 0, padded - rows)))[:rows]

    def _multiply(self, x: torch.Tensor) -> torch.Tensor:
        if self.packed:
            return _blocked_linear(x, self._blocks, self.bias, "none", [], "")
        return linear(x, self.weight, self.bias)

    def rows(self, ids: torch.Tensor) -> torch.Tensor:
        """Rows of the weight, [ids, in]: an embedding that is tied to a head."""
        return _gather(self.weight, ids) if self.packed else self.weight[ids]

    @property
    def packable(self) -> bool:
        """Whether packing it is possible and not done."""
        rows, columns = self.weight.shape
        fits = rows % _ROWS == 0 and columns % _COLUMNS == 0 and self.weight.dtype == torch.bfloat16
        return fits and not self.packed and not self._refused and _can_pack()

    def pack(self) -> bool:
        """Lay the weight out in blocks, where that takes no other bytes and keeps the rows readable. False
        when there is no memory to do it now."""
        try:
            self.packed = self._pack()
        except OutOfMemory:
            return False
        except RuntimeError:
            log.exception("a matrix stays as it is")
        self._refused = not self.packed
        return True

    def emptied(self) -> None:
        """The weight's memory has been given back; what will be read into it is plain."""
        self.packed = False

    def _pack(self) -> bool:
        with system.claim(self.weight.nbytes):
            blocks = torch.ops.mkldnn._reorder_linear_weight(self.weight, _TYPICAL_BATCH)
            address, nbytes = torch.ops.mkldnn.data_ptr(blocks), torch.ops.mkldnn._nbytes(blocks)
            if nbytes != self.weight.nbytes or not _same_rows(self.weight, address):
                return False
            if self._blocks is None:
                self._blocks = _opaque_over(self.weight, torch.ops.mkldnn._get_mkldnn_serialized_md(blocks))
            ctypes.memmove(self.weight.data_ptr(), address, nbytes)
        return True


def _padded(rows: int, *, lone: bool) -> int:
    """Rows that are multiplied for so many: few numbers, since each new one costs time and memory to prepare;
    and two for one, unless ``lone``, since a lone row's sums are rounded otherwise than among others."""
    if rows <= 16:
        return rows if lone else max(2, rows)
    return round_up(rows, 4 if rows <= 64 else 8)


def _blocked(flat: torch.Tensor, shape: torch.Size) -> torch.Tensor:
    """The bytes of a packed [rows, columns] matrix as [rows / 64, columns / 32, 16, 64, 2]."""
    return flat.view(shape[0] // _ROWS, shape[1] // _COLUMNS, _COLUMNS // 2, _ROWS, 2)


def _gather(packed: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    blocks = _blocked(packed.view(-1), packed.shape)
    return blocks[ids // _ROWS, :, :, ids % _ROWS].reshape(*ids.shape, packed.shape[1])


def _same_rows(plain: torch.Tensor, address: int) -> bool:
    """Whether the blocks at ``address`` are laid out as ``_gather`` reads them."""
    memory = (ctypes.c_char * plain.nbytes).from_address(address)
    packed = torch.frombuffer(memory, dtype=plain.dtype).view(plain.shape)
    ids = torch.linspace(0, plain.shape[0] - 1, min(_CHECKED_ROWS, plain.shape[0])).long()
    return torch.equal(_gather(packed, ids), plain[ids])


@cache
def _can_pack() -> bool:
    """Whether this torch and this CPU have what packing takes, shown on a small matrix."""
    try:
        layer = Linear(torch.arange(_ROWS * _COLUMNS).view(_ROWS, _COLUMNS).bfloat16())
        x = torch.ones(3, _COLUMNS, dtype=torch.bfloat16)
        plain = layer(x)
        layer.pack()
        return layer.packed and torch.equal(layer(x), plain)
    except (AttributeError, OSError, RuntimeError):
        return False


def _opaque_over(weight: torch.Tensor, metadata: torch.Tensor) -> torch.Tensor:
    """An opaque oneDNN tensor over the memory of ``weight``, by the C interface that torch keeps stable for
    ahead-of-time compiled models."""
    torch_cpu = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"))
    dims = weight.ndim
    layout = (ctypes.c_uint8 * metadata.numel()).from_buffer_copy(metadata.numpy().tobytes())
    handle = ctypes.c_void_p()
    failed = torch_cpu.aoti_torch_create_tensor_from_blob_v2(
        ctypes.c_void_p(weight.data_ptr()),
        ctypes.c_int64(dims),
        (ctypes.c_int64 * dims)(*weight.shape),
        (ctypes.c_int64 * dims)(*weight.stride()),
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
