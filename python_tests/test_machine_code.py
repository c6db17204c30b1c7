"""What the compiler made of the CUDA kernels, where a disassembler is installed: the widths at which they move memory,
products of the noise, no doubles and no calls where the time goes. test_cuda_compiles reads ptxas' own report.
"""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import NamedTuple

import machine_code
import pytest
from machine_code import Instruction, Resources, accesses, innermost, loops, parse_listing, parse_resources, readable

import langevin_ext
from langevin_ext import backend_info

ARCHS = backend_info()["cuda_archs"].split()
WIDTH = {"float": 128, "bfloat16": 64, "float16": 64}  # bits of the four elements of a block of noise
TYPES = tuple(WIDTH)
MEMORY = ("LDG", "STG", "LDGSTS")
MEMORY_AND_SHARED = (*MEMORY, "LDS", "STS")
# The products of Philox with its two factors, as signed numbers in a listing: two in each of ten rounds.
FACTORS = ("-0x2daee0ad", "-0x326172a9")
PRODUCTS = 2 * 10
# Registers a thread: 64 let a multiprocessor hold 4 blocks of 256 threads. The kernels of noise wait for nothing but
# memory and must fill it, or nearly so: 65536 registers for 1024 threads (7.5), 2048 (8.0 to 10.0) or 1536 (12.0).
USUAL_REGISTERS = 64
NOISE_REGISTERS = 42
POOL_REGISTERS = 80  # for 3 blocks
COMPILER = 13000  # CUDA's version


class Noise(NamedTuple):
    """A kernel whose threads each move one block of four elements at a time, whole, over several samples."""

    reads: tuple[int, ...]  # widths of what a sample's turn reads, in bits; 32 are a sample's coefficients
    writes: tuple[int, ...]
    blocks: int = 1  # of noise in a turn


NOISE = {
    **{f"langevin_step_kernel<float, {s}, true>": Noise((128, WIDTH[s]), (128,)) for s in TYPES},
    **{f"langevin_table_step_kernel<float, {s}, true>": Noise((128, WIDTH[s]), (128,)) for s in TYPES},
    "cld_step_kernel<true>": Noise((128, 128, 128), (128, 128), blocks=2),
    **{f"perturb_kernel<{t}, true>": Noise((WIDTH[t], 32), (WIDTH[t],)) for t in TYPES},
    **{f"dsm_loss_kernel<{t}, true>": Noise((WIDTH[t], 32, 32), (WIDTH[t], 32)) for t in TYPES},
}


class Norm(NamedTuple):
    """A kernel of instance_norm_plus in its vectorised form."""

    passes: tuple[str, ...]  # over the image: the accesses in the body of each loop, however often it is unrolled
    least: int  # vectors asked for before the first is used
    first_arch: int = 75


def norm_rows():
    rows = {}
    for t in TYPES:
        lanes = 4 if t == "float" else 8
        # The sums of x, of x + residual, which is written, and the deviations from their mean.
        passes = ("LDG 128", "LDG 128, STG 128", "LDG 128")
        rows[f"moments_kernel<VectorAccess<{t}, {lanes}>>"] = Norm(passes, 2)
        rows[f"normalise_kernel<VectorAccess<{t}, {lanes}>>"] = Norm(("LDG 128, STG 128",), 2)
        four = WIDTH[t]  # 16-bit types move four elements in the gradient, for the registers
        rows[f"sums_kernel<VectorAccess<{t}, 4>>"] = Norm((f"LDG {four}",), 2)
        rows[f"gradient_kernel<VectorAccess<{t}, 4>>"] = Norm((f"LDG {four}, STG {four}",), 2)
        # The copy; the sums of x + residual and of x alone; their deviations; the result.
        passes = ("LDGSTS 128", "LDG 128, LDS 128, STG 128, STS 128", "LDS 128", "LDS 128", "LDS 128, STG 128")
        rows[f"one_pass_kernel<{t}>"] = Norm(passes, 1, first_arch=90)
    return rows


NORMS = norm_rows()
# Of these the source says float64: the level of a row, and the sum of a sample's sums. langevin_table_step reads its
# coefficients as such, before the turns of the samples.
DOUBLES = ("advance_row_kernel", "dsm_loss_sum_kernel")


def archs_of(row):
    return [arch for arch in ARCHS if int(arch.rstrip("af")) >= getattr(row, "first_arch", 0)]


def rows_by_arch(rows):
    return [pytest.param(name, arch, id=f"{name}-sm_{arch}") for name, row in rows.items() for arch in archs_of(row)]


@cache
def tools():
    if not backend_info()["cuda_built"]:
        pytest.skip(f"no CUDA kernel was compiled: {backend_info()['cuda_built_reason']}")
    found = machine_code.find_tools()
    if found is None:
        pytest.skip(machine_code.WANTED)
    return found


@cache
def listings():
    """{arch: {kernel: code}}, or the error; the architectures at once, each takes seconds."""
    read = [(tools(), langevin_ext._C.__file__, arch) for arch in ARCHS]
    try:
        with ThreadPoolExecutor() as pool:
            return dict(zip(ARCHS, pool.map(lambda these: machine_code.kernels_of(*these), read), strict=True))
    except OSError as error:
        return error


def kernels(arch):
    tools()
    if isinstance(listings(), OSError):
        pytest.skip(f"{listings()}; it may be older than the compiler")
    return listings()[arch]


def code_of(name, arch):
    if backend_info()["cuda_runtime"] != COMPILER:
        pytest.skip("the rows are what the compiler of CUDA 13.0 makes")
    assert name in kernels(arch), f"there is no {name} for sm_{arch}; its row in this file needs another name"
    return kernels(arch)[name]


def main_loop(code):
    """The turns of the samples."""
    return loops(code)[0]


def passes(code):
    """The loops over an image, by what they access: those without another in them that move more than 32 bits."""
    found = [(sorted(accesses(body, MEMORY_AND_SHARED)), body) for body in innermost(loops(code))]
    return [(", ".join(access), body) for access, body in found if any(int(one.split()[1]) > 32 for one in access)]


def test_resources():
    """Nothing in local memory, and registers within their bounds, in every kernel of every architecture."""
    try:
        found = machine_code.resources_of(tools(), langevin_ext._C.__file__)
    except OSError as error:
        pytest.skip(f"{error}; it may be older than the compiler")
    assert {arch for arch, _ in found} == set(ARCHS)
    for (arch, name), used in found.items():
        limit = NOISE_REGISTERS if name in NOISE and int(arch.rstrip("af")) >= 80 else USUAL_REGISTERS
        limit = POOL_REGISTERS if name.startswith("normalise_pool") else limit
        assert (used.stack, used.local) == (0, 0), f"{name} for sm_{arch} uses {used}"
        assert used.registers <= limit, f"{name} for sm_{arch} uses {used.registers} > {limit} registers"


@pytest.mark.parametrize("arch", ARCHS)
def test_no_local_memory_and_no_doubles(arch):
    for name, code in kernels(arch).items():
        where = f"{name} for sm_{arch}"
        assert not [i for i in code if i.name in {"LDL", "STL"}], f"{where} uses local memory"
        searched = main_loop(code) if name.startswith("langevin_table") else code
        if not name.startswith(DOUBLES):
            assert not [i.opcode for i in searched if machine_code.is_double(i)], f"{where} computes in float64"


@pytest.mark.parametrize(("name", "arch"), rows_by_arch(NOISE))
def test_noise(name, arch):
    row, code = NOISE[name], code_of(name, arch)
    loop = main_loop(code)
    assert accesses(loop, MEMORY) == Counter([f"LDG {w}" for w in row.reads] + [f"STG {w}" for w in row.writes])
    assert machine_code.slow(code) == []
    products = [i for i in code if any(factor in i.operands.split(", ") for factor in FACTORS)]
    wide = [i for i in products if i.opcode.endswith("IMAD.WIDE.U32")]
    # The first product of a block is that of its number, the same for all samples and all streams.
    assert row.blocks * PRODUCTS - row.blocks + 1 <= len(wide) <= row.blocks * PRODUCTS
    assert len(products) - len(wide) <= row.blocks  # and its lower half may be made again


@pytest.mark.parametrize(("name", "arch"), rows_by_arch(NORMS))
def test_norm(name, arch):
    row, found = NORMS[name], passes(code_of(name, arch))
    if "bfloat16" in name and "STG" in str(row.passes) and int(arch.rstrip("af")) >= 80:
        assert any(i.opcode.startswith("F2FP.BF16") for i in code_of(name, arch)), "rounded without its instruction"
    missing = Counter(row.passes) - Counter(access for access, _ in found)
    assert not missing, f"no loop with {list(missing)} alone; there are {[access for access, _ in found]}"
    for access, body in [one for one in found if one[0] in row.passes]:
        assert machine_code.slow(body) == [], f"in the loop with {access}"
        if access.startswith("LDG "):
            assert accesses(body, ("LDG",)).total() >= row.least, f"one vector at a time in the loop with {access}"


@pytest.mark.parametrize("arch", ARCHS)
def test_norms_fuse_no_quotient_into_a_sum(arch):
    """So that the two-kernel and the one-pass form have the same bits."""
    for name, code in kernels(arch).items():
        if name.startswith(("moments", "normalise", "one_pass")):
            assert machine_code.fused_quotients(code) == [], f"{name} for sm_{arch}"


@pytest.mark.parametrize(("name", "arch"), rows_by_arch({k: v for k, v in NORMS.items() if k.startswith("one_pass")}))
def test_cluster(name, arch):
    """Asynchronous copies past the first-level cache, the cluster's barriers, and reads of other blocks' memory."""
    opcodes = Counter(i.opcode for i in code_of(name, arch))
    assert opcodes["LDGSTS.E.BYPASS.128"] >= 1
    assert opcodes["UCGABAR_ARV"] >= 2 and opcodes["UCGABAR_WAIT"] >= 2
    assert opcodes["LD.E"] >= 2  # of an address in the cluster, which is known at run time alone


LISTING = """
Fatbin elf code:
================
arch = sm_90
\tcode for sm_90
\t\tFunction : _ZN2lv31_GLOBAL__N__0123abcd_6_copy_cu_011copy_kernelIfNS_8bfloat16ELb1EEEvNS_4CopyIT_T0_EE
\t.headerflags\t@"EF_CUDA_SM90"
        /*0000*/                   IMAD.WIDE.U32 R2, R3, -0x2daee0ad, RZ ;       /* 0x000000000000 */
                                                                                 /* 0x000000000001 */
        /*0010*/              @!PT LDS RZ, [RZ] ;                                /* 0x000000000002 */
        /*0020*/                   LDG.E.128 R4, desc[UR4][R2.64] ;              /* 0x000000000003 */
        /*0030*/                   LDG.E.U16.CONSTANT R9, desc[UR4][R2.64] ;     /* 0x000000000004 */
        /*0040*/              @!P1 CALL.REL.NOINC 0x90 ;                         /* 0x000000000005 */
        /*0050*/                   STG.E desc[UR4][R2.64], R4 ;                  /* 0x000000000006 */
        /*0060*/               @P0 BRA 0x50 ;                                    /* 0x000000000007 */
        /*0070*/               @P0 CALL.REL.NOINC 0x90 ;                         /* 0x000000000008 */
        /*0080*/                   BRA 0x20 ;                                    /* 0x000000000009 */
        /*0090*/                   F2F.F32.F64 R4, R6 ;                          /* 0x00000000000a */
        /*00a0*/                   EXIT ;                                        /* 0x00000000000b */
        /*00b0*/                   NOP;                                          /* 0x00000000000c */
"""


def test_listing_is_read():
    (name, code), *others = parse_listing(LISTING).items()
    assert name == "copy_kernel<float, bfloat16, true>" and not others
    assert code[0] == Instruction(0, "", "IMAD.WIDE.U32", "R2, R3, -0x2daee0ad, RZ")
    assert [i.address for i in code] == [0x00, 0x20, 0x30, 0x40, 0x50, 0x60, 0x70, 0x80, 0x90, 0xA0]
    assert accesses(code, MEMORY_AND_SHARED) == {"LDG 128": 1, "LDG 16": 1, "STG 32": 1}
    assert machine_code.slow(code) == ["CALL.REL.NOINC"]  # the other one leaves the loop
    assert [i.opcode for i in code if machine_code.is_double(i)] == ["F2F.F32.F64"]


def test_loops_are_found():
    outer, inner = loops(parse_listing(LISTING)["copy_kernel<float, bfloat16, true>"])
    assert (outer[0].address, outer[-1].address) == (0x20, 0x80)
    assert [i.opcode for i in inner] == ["STG.E", "BRA"]
    assert innermost([outer, inner]) == [inner]
    assert innermost([outer]) == [outer]


def test_passes_tell_what_they_access():
    wide, narrow = Instruction(0, "", "LDG.E.128", "R0, [R4]"), Instruction(16, "", "LDG.E", "R1, [R4]")
    back = Instruction(32, "", "BRA", "0x0")
    assert [access for access, _ in passes([wide, back])] == ["LDG 128"]
    assert [access for access, _ in passes([wide, narrow, back])] == ["LDG 128, LDG 32"]
    assert passes([narrow, back._replace(operands="0x10")]) == []


@pytest.mark.parametrize(
    ("opcode", "double"),
    [("DFMA", True), ("MUFU.RCP64H", True), ("I2F.F64", True), ("LDG.E.64", False), ("DEPBAR.LE", False)]
    + [("FFMA", False), ("I2F.U64.RP", False), ("F2I.U32.F64.TRUNC", True)],
)
def test_doubles_are_known(opcode, double):
    assert machine_code.is_double(Instruction(0, "", opcode, "R0, R1")) == double


def test_fused_quotients_are_found():
    inverse, product = Instruction(0, "", "MUFU.RCP", "R2, R9"), Instruction(16, "", "FMUL", "R4, R2, R3")
    step, refined = Instruction(16, "", "FFMA", "R3, -R9, R2, 1"), Instruction(32, "", "FFMA", "R4, R2, R3, R2")
    fused, other = Instruction(32, "@P0", "FFMA", "R5, R3, R2.reuse, R7"), Instruction(32, "", "FFMA", "R5, R4, R3, R7")
    assert machine_code.fused_quotients([inverse, product, other]) == []
    assert machine_code.fused_quotients([inverse, step, refined, other]) == []
    assert machine_code.fused_quotients([inverse, product, fused]) == [fused]
    assert machine_code.fused_quotients([inverse, product._replace(operands="R2, R2, R3"), fused]) == []


def test_resources_are_read():
    text = (
        "arch = sm_75\n Function _ZN2lv11copy_kernelEv:\n  REG:40 STACK:8 SHARED:0 LOCAL:16 CONSTANT[0]:696\n"
        "arch = sm_90a\n Function plain:\n  REG:4 STACK:0 SHARED:1024 LOCAL:0 CONSTANT[0]:528\n"
    )
    expected = {("75", "copy_kernel"): Resources(40, 8, 16), ("90a", "plain"): Resources(4, 0, 0)}
    assert parse_resources(text) == expected


def test_names_are_read():
    vectors = "_ZN2lv12_GLOBAL__N_114moments_kernelINS_12VectorAccessINS_7float16ELi8EEEEEvNS_8NormPlanIfEE"
    assert readable(vectors) == "moments_kernel<VectorAccess<float16, 8>>"
    assert readable("_ZN2lv3fooIlEEvT_") == "foo<int64>"
    with pytest.raises(ValueError, match="readable: a template argument must be a name, a number or a simple type"):
        readable("_ZN2lv3fooIPvEEvT_")


def test_tools_are_looked_for(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("CUDA_HOME", str(tmp_path))
    (tmp_path / "bin").mkdir()
    for name in ("cuobjdump", "nvdisasm"):
        (tmp_path / "bin" / name).write_text("#!/bin/sh\necho broken >&2\nexit 3\n")
        (tmp_path / "bin" / name).chmod(0o755)
    found = machine_code.find_tools()
    assert found == [str(tmp_path / "bin" / name) for name in ("cuobjdump", "nvdisasm")]
    with pytest.raises(OSError, match="cuobjdump --dump-resource-usage failed: broken"):
        machine_code.resources_of(found, "core.so")
