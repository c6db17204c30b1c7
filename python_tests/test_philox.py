"""csrc/philox.h itself: the same bits under every compiler flag, at the words where it could go wrong."""

import ctypes
import importlib.util
import platform
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from test_noise import GOLDEN, GOLDEN_SHAPE, KNOWN, box_muller64, digest, hexes

from langevin_ext import reference

CSRC = Path(__file__).resolve().parent.parent / "csrc"
X86 = platform.machine() in {"x86_64", "AMD64"}
FLAGS = {
    "generic": "-O1",
    "contracted": "-O2 -mavx2 -mfma -ffp-contract=fast" if X86 else "-O2 -ffp-contract=fast",
    "native": "-O3 -march=native -ffp-contract=fast",
    "clones": "-O3 -fno-math-errno -fno-trapping-math -ffp-contract=off -DTEST_CLONES",  # as setup.py does
}


def compiled(folder, flags):
    """philox_library.cpp as a ctypes library; its functions on tensors."""
    if shutil.which("g++") is None:
        pytest.skip("no g++")
    library = folder / "philox.so"
    sources = [Path(__file__).with_name("philox_library.cpp"), CSRC / "cpu" / "isa.cpp"]
    command = [
        "g++",
        "-std=c++17",
        "-Wall",
        "-Wextra",
        "-Werror",
        "-shared",
        "-fPIC",
        *flags.split(),
        f"-I{CSRC}",
        *map(str, sources),
        "-o",
        str(library),
    ]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return ctypes.CDLL(str(library))


def edge_words():
    """Words at the ends, around the switch to 1 - f at 2/3, at powers of two and at the quadrant borders."""
    centres = [0, 2**32 - 1, 0xAAAAAAAB, 2**24, 2**25] + [2**k for k in range(33)] + [k * 2**29 for k in range(9)]
    words = {centre + offset for centre in centres for offset in range(-4, 5)}
    return torch.tensor(sorted(word for word in words if 0 <= word < 2**32))


def check_edges(normals_of):
    """Each edge word as radius and as angle, against float64.

    |z| <= 6.77 and each of radius, cosine and sine is within 1e-7 relative or absolute of its float64 value.
    """
    edges = edge_words()
    pairs = torch.cartesian_prod(edges, edges)
    actual = normals_of(pairs).double()
    assert torch.isfinite(actual).all() and actual.abs().max() < 6.77
    assert (actual - box_muller64(pairs)).abs().max() <= 1e-6
    radius = torch.sqrt(-2.0 * torch.log1p(-(2.0**32 - 0.5 - edges.double()) * 2.0**-32))
    measured = normals_of(torch.stack([edges, torch.zeros_like(edges)], 1))[:, 0].double()  # cos = 1 - 1e-18
    assert ((measured - radius).abs() <= 1.5e-7 * radius).all()  # relative, down to radius 1.5e-5


def test_edge_words_of_the_reference():
    check_edges(lambda pairs: reference.box_muller(pairs).view(pairs.shape))


@pytest.mark.parametrize("name", FLAGS)
def test_bits_do_not_depend_on_the_compiler_s_flags(tmp_path, name):
    library = compiled(tmp_path, FLAGS[name])
    out = torch.empty(GOLDEN_SHAPE)
    library.normals(
        ctypes.c_uint64(42),
        ctypes.c_int64(GOLDEN_SHAPE[0]),
        ctypes.c_int64(GOLDEN_SHAPE[1] // 4),
        ctypes.c_void_p(out.data_ptr()),
    )
    assert digest(out) == GOLDEN
    for counter, key, ten, _ in KNOWN:
        state = (ctypes.c_uint32 * 4)(*hexes(counter))
        library.philox(state, (ctypes.c_uint32 * 2)(*hexes(key)))
        assert list(state) == hexes(ten)

    def normals_of(pairs):
        words, normals = pairs.to(torch.uint32).contiguous(), torch.empty(pairs.shape)
        library.pairs(
            ctypes.c_void_p(words.data_ptr()), ctypes.c_int64(pairs.numel()), ctypes.c_void_p(normals.data_ptr())
        )
        return normals

    check_edges(normals_of)
    edges = torch.cartesian_prod(edge_words(), edge_words())
    assert torch.equal(normals_of(edges), reference.box_muller(edges).view(edges.shape))


def lanes(library, level, begin, count, guard=0):
    """`count` normals from element `begin` on of sample 1, and `guard` untouched elements behind them."""
    out = torch.full((count + guard,), 7.0)
    call = (ctypes.c_uint64(42), ctypes.c_uint32(1), ctypes.c_int64(begin), ctypes.c_int64(count))
    if not library.lanes(ctypes.c_int(level), *call, ctypes.c_void_p(out.data_ptr())):
        pytest.skip(f"this processor is not x86-64-v{level}")
    return out


@pytest.fixture(scope="module")
def library_of_lanes(tmp_path_factory):
    library = compiled(tmp_path_factory.mktemp("lanes"), FLAGS["clones"])
    library.lanes.restype = ctypes.c_bool
    return library


@pytest.mark.parametrize("level", [0, 3, 4])
def test_vectors_of_counters_make_the_same_bits(library_of_lanes, level):
    library = library_of_lanes
    expected = reference.philox_normal((2, 1024), seed=42)[1]
    for count in (*range(1, 140), 255, 256, 257, 511, 512):  # around the vectors of 4, 8, 16 and 32 blocks
        out = lanes(library, level, 0, count, guard=40)
        assert torch.equal(out[:count], expected[:count]) and (out[count:] == 7).all(), count
    assert torch.equal(lanes(library, level, 256, 512), expected[256:768])
    # The last blocks there are, and a carry into the upper half of a lane, which must not be read.
    last = 2**34 - 64
    assert torch.equal(lanes(library, level, last, 128), lanes(library, 0, last, 128))


def test_fit_polynomials_makes_the_coefficients_in_use():
    pytest.importorskip("mpmath")
    spec = importlib.util.spec_from_file_location("fit_polynomials", CSRC / "fit_polynomials.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    in_python = {"kLog": reference.LOG, "kSin": reference.SIN, "kCos": reference.COS}
    stated = {"kLog": 4.6e-8, "kSin": 4e-9, "kCos": 1.1e-10, "kExpm1": 1.5e-8}
    fits = module.fits()
    assert fits.keys() == stated.keys()
    for name, (fitted, error) in fits.items():
        header = (CSRC / ("elu.h" if name == "kExpm1" else "philox.h")).read_text()
        in_header = {float.fromhex(text) for text in re.findall(r"-?0x1\.[0-9a-f]+p-?\d+(?=f)", header)}
        fitted = [float(c) for c in fitted]
        assert fitted == in_python.get(name, fitted)
        assert error < stated[name]
        assert set(fitted) <= in_header, name
