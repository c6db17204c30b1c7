"""Named tensors in the safetensors format, and the hash by which a damaged file is told from a whole one."""

import hashlib
import json
import struct

import torch

from ._files import atomic_path

DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


def write_tensors(path, tensors, header) -> None:
    """Writes the safetensors format, atomically: length of the header (uint64), header (JSON), bytes of the tensors.

    Written here because the library's save_file makes a temporary of its own, which only its owner may read, and needs
    all tensors copied; reading is left to the library, which checks every offset.

    Args:
        path: the file to write; its folder must exist.
        tensors: {name: contiguous CPU tensor}.
        header: {name: text}, what the file says of itself.
    """
    entries, offset = {"__metadata__": header}, 0
    tensors = dict(sorted(tensors.items(), key=lambda item: -item[1].element_size()))  # keeps each one aligned
    for name, value in tensors.items():
        stop = offset + value.numel() * value.element_size()
        entries[name] = {"dtype": DTYPES[value.dtype], "shape": list(value.shape), "data_offsets": [offset, stop]}
        offset = stop
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for value in tensors.values():
            file.write(_bytes(value))


def read_tensors(path) -> tuple[dict, dict]:
    """({name: tensor}, {name: text of the header}); ValueError where the file is not of the format or cut off."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            return {key: file.get_tensor(key) for key in file.keys()}, file.metadata() or {}
    except SafetensorError as error:
        raise ValueError(str(error)) from error


def tensor_hash(tensors, text) -> str:
    """SHA-256 over a text and the names, dtypes, shapes and bytes of contiguous CPU tensors."""
    digest = hashlib.sha256(text.encode())
    for name, value in sorted(tensors.items()):
        digest.update(f"\n{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(_bytes(value))
    return digest.hexdigest()


def _bytes(value):
    """The memory of a contiguous CPU tensor."""
    return value.reshape(-1).view(torch.uint8).numpy()
