"""Reads the machine code of CUDA kernels from a built library, by the disassembler of the CUDA toolkit (cuobjdump)."""

import importlib.util
import os
import re
import shutil
import subprocess
from collections import Counter
from pathlib import Path
from typing import NamedTuple

WANTED = (
    "no cuobjdump with nvdisasm found: install the CUDA toolkit and put its bin on PATH or set CUDA_HOME, or install "
    "triton, whose wheel has both (every CUDA build of torch brings it along)"
)
INSTRUCTION = re.compile(r"\s+/\*([0-9a-f]{4,})\*/\s+(?:(@!?U?P\w+)\s+)?([A-Z][\w.]*)\s*(.*?)\s*;")


class Instruction(NamedTuple):
    address: int
    guard: str  # "@P0", "@!P0" or ""
    opcode: str  # "LDG.E.128"
    operands: str

    @property
    def name(self):
        return self.opcode.split(".")[0]

    @property
    def target(self):
        """Where a branch or a call goes to, or None."""
        if self.name not in {"BRA", "CALL"}:
            return None
        found = re.search(r"0x([0-9a-f]+)$", self.operands)
        return int(found.group(1), 16) if found else None

    @property
    def calls(self):
        """Whether this is a call; ptxas also leaves loops by one to what stands behind the next instruction."""
        return self.name == "CALL" and self.target != self.address + 32

    @property
    def access(self):
        """What a memory instruction moves, such as "LDG 128"; 32 bits where the opcode names no other width."""
        width = re.search(r"\.[US]?(8|16|64|128|256)\b", self.opcode)
        return f"{self.name} {width.group(1) if width else 32}"


class Resources(NamedTuple):
    registers: int
    stack: int
    local: int


def find_tools():
    """The paths of cuobjdump and of nvdisasm, which it calls; or None."""
    triton = importlib.util.find_spec("triton")
    folders = [Path(os.environ[name]) / "bin" for name in ("CUDA_HOME", "CUDA_PATH") if os.environ.get(name)]
    folders += [Path(nvcc).resolve().parent for nvcc in [shutil.which("nvcc")] if nvcc]
    folders += [Path("/usr/local/cuda/bin")]
    folders += (
        [Path(folder) / "backends/nvidia/bin" for folder in triton.submodule_search_locations or ()] if triton else []
    )
    path = os.pathsep.join([os.environ.get("PATH", ""), *map(str, folders)])
    tools = [shutil.which(name, path=path) for name in ("cuobjdump", "nvdisasm")]
    return None if None in tools else tools


def run(tools, *options):
    path = os.pathsep.join([str(Path(tools[1]).parent), os.environ.get("PATH", "")])
    done = subprocess.run([tools[0], *options], capture_output=True, text=True, env={**os.environ, "PATH": path})
    if done.returncode != 0:
        raise OSError(f"cuobjdump {' '.join(options[:-1])} failed: {done.stderr.strip()}")
    return done.stdout


def resources_of(tools, library):
    return parse_resources(run(tools, "--dump-resource-usage", str(library)))


def kernels_of(tools, library, arch):
    return parse_listing(run(tools, "-arch", f"sm_{arch}", "--dump-sass", str(library)))


def parse_resources(text):
    """{(arch, kernel): Resources} from cuobjdump --dump-resource-usage."""
    found, arch, kernel = {}, None, None
    for line in text.splitlines():
        if match := re.match(r"arch = sm_(\w+)", line):
            arch = match.group(1)
        elif match := re.match(r"\s*Function (\w+):", line):
            kernel = readable(match.group(1))
        elif match := re.match(r"\s*REG:(\d+) STACK:(\d+) .*LOCAL:(\d+)", line):
            found[arch, kernel] = Resources(*map(int, match.groups()))
    return found


def parse_listing(text):
    """{kernel: its instructions} from cuobjdump --dump-sass."""
    found, code = {}, None
    for line in text.splitlines():
        if match := re.match(r"\s*Function : (\w+)", line):
            code = found[readable(match.group(1))] = []
        elif match := INSTRUCTION.match(line):
            address, guard, opcode, operands = match.groups()
            if opcode != "NOP" and guard != "@!PT":  # neither does anything
                code.append(Instruction(int(address, 16), guard or "", opcode, operands))
    return found


def readable(symbol):
    """langevin_step_kernel<float, bfloat16, true> of a mangled name in nested namespaces."""
    if not symbol.startswith("_ZN"):
        return symbol
    name, rest = nested_name(symbol[3:])
    return name + (template_arguments(rest[1:])[0] if rest.startswith("I") else "")


def nested_name(text):
    """The last of the names that stand before their lengths run out, and what follows it."""
    name = ""
    while length := re.match(r"\d+", text):
        start, end = length.end(), length.end() + int(length.group())
        name, text = text[start:end], text[end:]
    return name, text


def template_arguments(text):
    """<arguments> up to the E that ends them, and what follows."""
    simple = {"f": "float", "d": "double", "l": "int64", "i": "int"}
    arguments = []
    while not text.startswith("E"):
        if literal := re.match(r"L([bi])(\d+)E", text):
            number = literal.group(2)
            arguments.append(("false", "true")[int(number)] if literal.group(1) == "b" else number)
            text = text[literal.end() :]
        elif text.startswith("NS_"):
            name, text = nested_name(text[3:])
            inner, text = template_arguments(text[1:]) if text.startswith("I") else ("", text)
            arguments.append(name + inner)
            text = text[1:]  # the E of the nested name
        elif text[0] in simple:
            arguments.append(simple[text[0]])
            text = text[1:]
        else:
            raise ValueError(f"readable: a template argument must be a name, a number or a simple type, got {text!r}")
    return f"<{', '.join(arguments)}>", text[1:]


def loops(code):
    """The bodies of the loops: what lies between a branch backwards and its target, the longest first."""
    spans = {(i.target, i.address) for i in code if i.name == "BRA" and i.target is not None and i.target < i.address}
    bodies = [[i for i in code if begin <= i.address <= end] for begin, end in spans]
    return sorted(bodies, key=len, reverse=True)


def innermost(bodies):
    """Those without another loop in them."""
    spans = [(body[0].address, body[-1].address) for body in bodies]
    return [
        body
        for body, (begin, end) in zip(bodies, spans, strict=True)
        if not any((begin, end) != (b, e) and begin <= b and e <= end for b, e in spans)
    ]


def accesses(code, names):
    """How often each width is moved by the instructions of these names: {"LDG 128": 2, "STG 128": 1}."""
    return Counter(i.access for i in code if i.name in names)


def is_double(instruction):
    return re.match(r"D(ADD|MUL|FMA|SETP|MNMX)\b|.*\.F64|.*64H", instruction.opcode) is not None


def slow(code):
    """Calls, and divisions that are not approximate or have 64 bits: each stands for tens of instructions."""
    return [i.opcode for i in code if i.calls or i.name == "FCHK" or i.opcode.startswith(("I2F.U64", "F2I.U64"))]


def fused_quotients(code):
    """Multiply-adds with an approximate inverse as a factor; but for the steps of an exact division."""
    found, inverses = [], set()
    for i in code:
        result, *operands = (operand.strip("-|").removesuffix(".reuse") for operand in i.operands.split(", "))
        if i.name == "FFMA" and inverses & set(operands[:2]) and operands[2] not in {"1", *inverses}:
            found.append(i)
        inverses -= {result}
        if i.opcode == "MUFU.RCP":
            inverses |= {result}
    return found
