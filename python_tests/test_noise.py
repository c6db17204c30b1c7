"""langevin_ext.noise: known answers, the frozen stream, and that a number depends on its coordinates alone."""

import hashlib

import pytest
import torch
from op_cases import check_bad_coordinates, same_for_thread_counts

from langevin_ext import noise, ops, reference

# SHA-256 of the bytes of noise.normal((4, 2^20), seed=42). It changes only if the stream does: then every result does.
GOLDEN = "743727328a37ddca647c698f8eced8bb07e4a91cf8fcdaa8007356fddda770c6"
GOLDEN_SHAPE = (4, 1 << 20)

# Random123's known answers for philox4x32: counter, key, 10 rounds, 7 rounds.
KNOWN = [
    (
        "00000000 00000000 00000000 00000000",
        "00000000 00000000",
        "6627e8d5 e169c58d bc57ac4c 9b00dbd8",
        "5f6fb709 0d893f64 4f121f81 4f730a48",
    ),
    (
        "ffffffff ffffffff ffffffff ffffffff",
        "ffffffff ffffffff",
        "408f276d 41c83b0e a20bc7c6 6d5451fd",
        "5207ddc2 45165e59 4d8ee751 8c52f662",
    ),
    (
        "243f6a88 85a308d3 13198a2e 03707344",
        "a4093822 299f31d0",
        "d16cfe09 94fdcceb 5001e420 24126ea1",
        "4dfccaba 190a87f0 c47362ba b6b5242a",
    ),
]
# (block, step, sample, stream), seed, words, normals computed in float64.
BLOCKS = [
    ((0, 0, 0, 0), 0, "6627e8d5 e169c58d bc57ac4c 9b00dbd8", (0.991137680, -0.924662588, -0.617608959, -0.482068587)),
    ((1, 0, 0, 0), 0, "f8e4cca4 5cb200db b1a574eb 097eff67", (-0.153638230, 0.180825898, 0.831735105, 0.197439720)),
    ((0, 1, 0, 0), 0, "6ad0c5ec ea236249 73a459f5 074944b3", (1.136367267, -0.675883017, 1.240591768, 0.224251130)),
    ((0, 0, 1, 0), 0, "844515e1 f08d6eaa 0f19c053 83f875f0", (1.067590141, -0.425344148, -2.367973042, -0.231496886)),
    (
        (5, 123, 7, 0),
        1234567890123,
        "e4701ed4 15ec6940 63a3b3e2 8387f918",
        (0.409863141, 0.244617407, -1.368611800, -0.118911803),
    ),
]


def hexes(text):
    return [int(word, 16) for word in text.split()]


def box_muller64(words):
    """Normals of pairs of words in float64."""
    w0, w1 = words.reshape(-1, 2).double().unbind(1)
    radius = torch.sqrt(-2.0 * torch.log((w0 + 0.5) * 2.0**-32))
    angle = (w1 + 0.5) * (2.0**-31 * torch.pi)
    return torch.stack([radius * torch.cos(angle), radius * torch.sin(angle)], dim=1).reshape(words.shape)


def digest(tensor):
    return hashlib.sha256(tensor.numpy().tobytes()).hexdigest()


@pytest.mark.parametrize("counter, key, ten, seven", KNOWN)
def test_random123_known_answers(counter, key, ten, seven):
    state = [torch.tensor([word]) for word in hexes(counter)]
    for rounds, expected in ((10, ten), (7, seven)):
        words = reference.philox_rounds(state, *hexes(key), rounds=rounds)
        assert [int(word) for word in words] == hexes(expected)


@pytest.mark.parametrize("coordinates, seed, words, normals", BLOCKS)
def test_words_and_normals_of_known_blocks(backend, coordinates, seed, words, normals):
    block, step, sample, stream = coordinates
    shape, where = (1, 4 * block + 4), dict(seed=seed, step=step, first=sample, stream=stream)
    assert noise.words(shape, **where)[0, -4:].tolist() == hexes(words)
    torch.testing.assert_close(noise.normal(shape, **where)[0, -4:], torch.tensor(normals), rtol=0, atol=5e-7)


def test_the_key_and_every_word_of_the_counter_are_used(backend):
    """Against the bijection itself: 64-bit seeds, a step, sample and stream of 32 bits."""
    seed, step, first, stream = 0xFEDCBA9876543210, 0xFFFFFFFE, 0xFFFFFFF0, 0x89ABCDEF
    expected = [
        torch.stack(
            [
                word.reshape(())
                for word in reference.philox_rounds(
                    [torch.tensor(c) for c in (block, step, first + sample, stream)], 0x76543210, 0xFEDCBA98
                )
            ]
        )
        for sample in range(2)
        for block in range(3)
    ]
    actual = noise.words((2, 10), seed, step=step, first=first, stream=stream)
    assert torch.equal(actual, torch.stack(expected).view(2, 12)[:, :10])


def test_four_million_normals_are_frozen_and_accurate():
    """The bits are frozen; the error against float64 is at most 1e-6 (5.9e-7 was measured)."""
    normals = noise.normal(GOLDEN_SHAPE, seed=42)
    assert digest(normals) == GOLDEN
    expected = box_muller64(noise.words(GOLDEN_SHAPE, seed=42))
    assert (normals.double() - expected).abs().max() <= 1e-6


def test_plain_torch_gives_the_frozen_bits():
    assert digest(reference.philox_normal(GOLDEN_SHAPE, seed=42)) == GOLDEN


def test_moments_and_correlations_within_five_standard_errors():
    """Mean, variance, skewness, kurtosis; correlation across lanes, blocks, steps, samples, streams and seeds."""
    shape = (64, 16384)
    z = noise.normal(shape, seed=1).double()
    n = z.numel()
    for power, expected, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
        assert abs((z**power).mean() - expected) < 5 * (variance / n) ** 0.5, power
    others = {
        "step": noise.normal(shape, seed=1, step=1),
        "sample": noise.normal(shape, seed=1, first=1),
        "stream": noise.normal(shape, seed=1, stream=1),
        "seed": noise.normal(shape, seed=2),
        "seed's upper half": noise.normal(shape, seed=1 + 2**32),
    }
    others |= {f"{lag} elements on": z.roll(lag, 1) for lag in (1, 2, 3, 4)}
    for name, other in others.items():
        assert abs((z * other).mean()) < 5 * n**-0.5, name
        assert abs((z.square() * other.double().square()).mean() - 1) < 5 * (8 / n) ** 0.5, name
    lanes = z.view(-1, 4)
    assert (lanes.mean(0).abs() < 5 * (4 / n) ** 0.5).all()
    assert ((lanes.square().mean(0) - 1).abs() < 5 * (8 / n) ** 0.5).all()


def test_tail_probabilities_within_five_standard_errors():
    z = noise.normal((16, 1 << 16), seed=3)
    for level in (0.5, 1.0, 2.0, 3.0):
        p = 1 - torch.special.erf(torch.tensor(level / 2**0.5, dtype=torch.float64)).item()
        assert abs((z.abs() > level).double().mean() - p) < 5 * (p * (1 - p) / z.numel()) ** 0.5


@pytest.mark.parametrize("draw", [noise.words, noise.normal, noise.uniform])
def test_a_number_depends_on_its_coordinates_alone(backend, draw):
    whole = draw((7, 3, 5, 9), seed=11, step=4, first=2, stream=5)
    parts = [draw((n, 3, 5, 9), seed=11, step=4, first=2 + at, stream=5) for at, n in ((0, 3), (3, 1), (4, 3))]
    assert torch.equal(torch.cat(parts), whole)
    assert torch.equal(draw((7, 135), seed=11, step=4, first=2, stream=5).view(whole.shape), whole)
    for elements in (1, 2, 3, 4, 5, 134):  # the end of a sample cuts a block, nothing else
        shorter = draw((7, elements), seed=11, step=4, first=2, stream=5)
        assert torch.equal(shorter, whole.view(7, 135)[:, :elements])
    assert draw((0, 4), seed=1).shape == (0, 4) and draw((3, 0), seed=1).shape == (3, 0)
    assert torch.equal(draw((3,), seed=1), draw((3, 1), seed=1)[:, 0])


def test_thread_counts_give_the_same_bits():
    same_for_thread_counts(lambda: (noise.normal((5, 20011), seed=5, step=1), noise.words((5, 20011), seed=5)))


def test_lanes_are_cosine_sine_pairs_of_neighbouring_words(backend):
    words = noise.words((2, 4096), seed=6)
    torch.testing.assert_close(noise.normal((2, 4096), seed=6).double(), box_muller64(words), rtol=0, atol=1e-6)


def test_uniform_is_exact(backend):
    """(word div 2^9 + 1/2) 2^-23: each value is a multiple of 2^-24 in the open unit interval."""
    words = noise.words((4, 50000), seed=8)
    actual = noise.uniform((4, 50000), seed=8)
    assert actual.dtype == torch.float32
    assert torch.equal(actual.double() * 2.0**24, ((words // 512) * 2 + 1).double())


def test_uniform_stays_inside_the_unit_interval(monkeypatch):
    ends = torch.tensor([[0, 511, 512, 2**31 - 1, 2**31, 2**32 - 512, 2**32 - 1]])
    monkeypatch.setattr(ops, "philox_words", lambda *args, **kwargs: ends)
    tiny = 2.0**-24
    expected = [tiny, tiny, 3 * tiny, 0.5 - tiny, 0.5 + tiny, 1 - tiny, 1 - tiny]
    assert noise.uniform((1, 7), seed=0)[0].tolist() == expected


def test_streams_are_apart():
    names = [
        "LANGEVIN",
        "INIT",
        "INPAINT",
        "DSM",
        "SSM",
        "CLD_X",
        "CLD_V",
        "LABELS",
        "DEQUANTISE",
        "FLIP",
        "ORDER",
        "RENOISE",
    ]
    assert [getattr(noise, name) for name in names] == list(range(12))


def test_device_is_honoured(backend):
    with torch.device("meta"):
        assert noise.normal((2, 3), seed=1, device="cpu").device.type == "cpu"


@pytest.mark.cuda
def test_cuda_gives_the_frozen_bits():
    assert digest(noise.normal(GOLDEN_SHAPE, seed=42, device="cuda").cpu()) == GOLDEN
    assert torch.equal(noise.words((3, 1001), seed=1, device="cuda").cpu(), noise.words((3, 1001), seed=1))


@pytest.mark.parametrize(
    "op, draw", [("philox_words", noise.words), ("philox_normal", noise.normal), ("philox_words", noise.uniform)]
)
def test_bad_coordinates_are_named(op, draw):
    check_bad_coordinates(op, lambda **coordinates: draw((2, 3), **coordinates))
    with pytest.raises(ValueError, match=rf"^{op}: shape must be \(samples, ...\), got \(\)$"):
        draw((), seed=1)
    with pytest.raises(ValueError, match=rf"^{op}: a sample must have fewer than 2\^34 elements, got 17179869184$"):
        draw((1, 2**17, 2**17), seed=1)
    with pytest.raises(ValueError, match=rf"^{op}: first must be in \[0, 2\^32 - 1\], got 4294967296$"):
        draw((0, 3), seed=1, first=2**32)
