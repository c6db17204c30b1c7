"""The exact law of schemes on Gaussian data, against printed tables, plain matrix recursions and samples.

The multi-resolution schemes are those of Block, Mroueh, Rakhlin and Ross 2020 (arXiv:2006.11166), Algorithm 2.
"""

import numpy as np
import pytest
import torch
from sampling_helpers import gaussian_law, geometric
from torch.nn.functional import interpolate

from langevin_ext import sample
from langevin_ext.samplers import build
from langevin_ext.samplers.table import AFTER, Row, Run, Upsample
from langevin_ext.scores import Gaussian, GaussianField
from langevin_ext.tuning import GaussianData, Law, evolve, fit, upsample_matrix
from langevin_ext.tuning.modes import Coupling

LADDER = geometric(1, 0.01, 10).tolist()
THREE = [(1, 2, 2), (1, 4, 4), (1, 8, 8)]
# The 8x8 field of covariance 0.0625 0.9^distance, its 2x2 averages, U(0, 1) at the start, ten levels, T = 100, eps =
# 2e-5: average variance of a pixel, covariance of right neighbours, squared Frechet distance to the data.
ROWS = [
    ("HRS", {}, 0.06640651, 0.05969419, 0.003896),
    ("LRS", {}, 0.05994008, 0.05118496, 0.000871),
    ("LRS-up", {}, 0.05914619, 0.05682704, 0.308576),
    ("LRS-up-HRS-1", {}, 0.06003203, 0.05686989, 0.149073),
    ("LRS-up-HRS-2", {}, 0.06114629, 0.05714708, 0.076251),
    ("LRS-up-HRS-3", {}, 0.06272446, 0.05764205, 0.025016),
    ("LRS-up-HRS-4", {}, 0.06446999, 0.05830988, 0.004975),
    ("LRS-up-HRS-5", {}, 0.06543492, 0.05881983, 0.002729),
    ("LRS-up-HRS-6", {}, 0.06560266, 0.05891613, 0.002632),
    ("LRS-up-HRS-9", {}, 0.06620458, 0.05948781, 0.003533),
    ("LRS-up-HRS-10", {}, 0.06640795, 0.05969566, 0.003898),
    ("LRS-2-up-HRS-9", {}, 0.06651484, 0.05980490, 0.004103),
    ("LRS-2-up-HRS-9", {"sigma_ref": "stage"}, 0.06570765, 0.05897997, 0.002777),
    ("LRS-3-up-HRS-8", {}, 0.06686928, 0.06016702, 0.004846),
    ("LRS-8-up-HRS-3", {}, 0.06293362, 0.05781245, 0.024674),
    ("LRS-up", {"upsample": "nearest"}, 0.05994008, 0.05618788, 0.393483038818),
    ("LRS-up", {"upsample": "bilinear"}, 0.05512096, 0.05342081, 0.351518653335),
    ("LRS-up-HRS-3", {"upsample": "nearest"}, 0.06238225, 0.05690643, 0.046320),
    ("LRS-up-HRS-3", {"upsample": "bilinear"}, 0.05951868, 0.05481751, 0.042534),
    ("R2[1:4]-up-R1[4:7]-up-R0[7:10]", {}, 0.06522812, 0.05901202, 0.005618),
]
# Data N(.5, .0625), one pixel: the variance after each level, then denoised.
G1 = [
    1.114969133124,
    0.4406498469732,
    0.1983381048499,
    0.1113015655142,
    0.0804663538605,
    0.0708074493421,
    0.0678632327630,
    0.0668749066876,
    0.0665284881516,
    0.0664051086641,
    0.0661931212218,
]


def eye(size):
    return torch.eye(size, dtype=torch.float64)


def stages_of(scheme, models, eps=2e-5, steps=100, denoise=False, ladder=LADDER, **options):
    common = {"eps": [eps] * models, "n_steps_each": [steps] * models, "denoise": denoise, "inpainting": False}
    return build(scheme, [list(ladder)] * models, options, **common)[1]


@pytest.fixture(scope="module")
def field():
    return fit(GaussianField((1, 8, 8)), THREE)


def right_neighbours(covariance, size):
    index = torch.arange(size * size).reshape(size, size)
    return covariance[index[:, :-1].flatten(), index[:, 1:].flatten()].mean().item()


@pytest.mark.parametrize("scheme, options, variance, neighbours, distance", ROWS)
def test_printed_laws_of_all_schemes(field, scheme, options, variance, neighbours, distance):
    options = dict(options)
    upsample = options.pop("upsample", "bicubic")
    data = field if scheme.startswith("R2") else field[1:]
    law = evolve(stages_of(scheme, len(data), **options), data, upsample=upsample)
    mean, covariance = law.pixels()
    assert covariance.diagonal().mean().item() == pytest.approx(variance, abs=5.1e-9)  # the printed digits
    assert right_neighbours(covariance, law.data.shape[1]) == pytest.approx(neighbours, abs=5.1e-9)
    # Six digits are printed; the last two LRS-up rows were computed anew with 40 digits (a square root of a singular
    # matrix in float64 is off in the sixth), which the eigenvalues of a singular matrix give to about 1e-8 each.
    assert law.frechet() == pytest.approx(distance, abs=5.1e-7)
    assert (mean - 0.5).abs().max() < 1e-12


def test_single_mode_after_each_level():
    data = fit(Gaussian(0.5, variance=0.0625, shape=(1, 1, 1)), [(1, 1, 1)])
    (run,) = stages_of("HRS", 1, denoise=True)
    ends = [place + 1 for place, row in enumerate(run.rows) if row.ends_level] + [len(run.rows)]
    found = [evolve([Run(0, run.rows[:end])], data).variances.item() for end in ends]
    assert found == pytest.approx(G1, rel=2e-11)  # 11 digits are printed


@pytest.mark.parametrize("init", ["uniform", "normal"])
def test_equals_the_matrix_recursion_row_by_row(init):
    generator = torch.Generator().manual_seed(0)
    root = torch.randn(6, 6, dtype=torch.float64, generator=generator)
    mean, cov = torch.randn(6, dtype=torch.float64, generator=generator), root @ root.T / 6
    data = fit(Gaussian(mean, cov=cov), [(6, 1, 1)])
    (run,) = stages_of("HRS", 1, eps=1.5e-4, steps=7, denoise=True)
    if init == "uniform":
        expected = gaussian_law(run.rows, mean.numpy(), cov.numpy())
    else:
        expected = [mean.numpy() - mean.numpy(), np.eye(6)]
        for row in run.rows:
            a = np.eye(6) - row.score_coef * np.linalg.inv(cov.numpy() + row.sigma**2 * np.eye(6))
            expected[0] = mean.numpy() + a @ (expected[0] - mean.numpy())
            expected[1] = a @ expected[1] @ a.T + row.noise_coef**2 * np.eye(6)
    found = evolve([run], data, init=init).pixels()
    np.testing.assert_allclose(found[0].flatten().numpy(), expected[0], atol=1e-12)  # 71 float64 matrix products
    np.testing.assert_allclose(found[1].numpy(), expected[1], atol=1e-12)


def test_any_rows_alone_or_interleaved_give_the_same_law_as_one_by_one(field):
    rows = [
        Row(0, 0.5, c, b, k) for k, (c, b) in enumerate([(0.1, 0.3), (0.1, 0.3), (0.0, 0.2), (0.9, 0.0), (0.1, 0.3)])
    ]
    whole = evolve([Run(2, tuple(rows))], field)
    apart = evolve([Run(2, (row,)) for row in rows], field)
    torch.testing.assert_close(whole.variances, apart.variances, rtol=1e-13, atol=0)  # rounding of powers
    torch.testing.assert_close(whole.mean, apart.mean, rtol=1e-13, atol=1e-13)


def test_the_uncommon_factors_of_a_step():
    """a = 0 forgets, a = -1 keeps the variance and adds all noise, |a| > 1 grows, a small 1 - a^2 loses no digits."""
    data = GaussianData.dense((1, 1, 1), torch.zeros(1), torch.ones(1, 1))
    for coefficient, expected in [(2.0, 0.01), (4.0, 1 / 12 + 0.03), (6.0, 4**3 / 12 + 0.01 * (1 + 4 + 16))]:
        rows = (Row(0, 1.0, coefficient, 0.1, 0),) * 3  # a = 0, -1, -2
        assert evolve([Run(0, rows)], [data]).variances.item() == pytest.approx(expected, rel=1e-14)
    tiny = evolve([Run(0, (Row(0, 1.0, 2e-12, 1e-6, 0),) * 1000)], [data]).variances.item()  # a = 1 - 1e-12
    assert tiny == pytest.approx((1 / 12) * (1 - 2e-9) + 1000 * 1e-12, rel=1e-15)


# --- upsampling ---
@pytest.mark.parametrize("size", [1, 2, 3, 8])
@pytest.mark.parametrize("upsample", ["bicubic", "bilinear", "nearest"])
def test_upsampling_matrices_equal_torch(upsample, size):
    corners = {} if upsample == "nearest" else {"align_corners": False}
    unit = eye(size)[:, None, None, :].expand(-1, 1, 2, -1)  # rows: two equal lines
    expected = interpolate(unit, scale_factor=2, mode=upsample, **corners)[:, 0, 1].T
    torch.testing.assert_close(upsample_matrix(upsample, size), expected, rtol=0, atol=1e-15)  # rounding of weights


def test_the_bicubic_kernel_of_pil():
    inner = upsample_matrix("bicubic-pil", 6)[5, 1:5]
    torch.testing.assert_close(inner.tolist(), [-0.0234375, 0.2265625, 0.8671875, -0.0703125][::-1], rtol=0, atol=1e-15)
    assert (upsample_matrix("bicubic-pil", 6).sum(1) - 1).abs().max() < 1e-15


@pytest.mark.parametrize("upsample", ["bicubic", "bicubic-pil", "bilinear", "nearest"])
def test_upsampling_and_renoise_are_those_of_sample(upsample):
    """One random image grown by both; then the law of white noise grown and renoised."""
    data = fit(GaussianField((2, 3, 4)), [(2, 3, 4)]) + fit(GaussianField((2, 6, 8)), [(2, 6, 8)])
    models = [GaussianField((2, 3, 4)), GaussianField((2, 6, 8))]
    x = torch.rand(2, 2, 3, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    drawn = sample(models, "LRS-up", 2, init=x, n_steps_each=0, denoise=False, upsample=upsample, dtype=torch.float64,
                   progress=False)  # fmt: skip
    blocks, matrix = Coupling(data[0], data[1], upsample).at(data[0].blocks)
    found = data[1].synthesise(data[0].analyse(x.flatten(1)) @ matrix[0].T)
    torch.testing.assert_close(found.reshape(drawn.shape), drawn, rtol=0, atol=1e-13)  # float64 sums of 16 terms
    start = Law.initial(data[0])
    grown = evolve([Upsample(1, 0.3)], data, upsample=upsample).pixels()[1]
    expected = start.upsampled(data[1], upsample).pixels()[1] + 0.09 * eye(96)
    torch.testing.assert_close(grown, expected, rtol=0, atol=1e-14)


def test_law_of_samples_with_renoise_within_4_standard_errors():
    n = 20_000
    ladder = geometric(1, 0.1, 4)
    models = [GaussianField((1, 2, 2), mean=0.2, sigmas=ladder), GaussianField((1, 4, 4), mean=0.2, sigmas=ladder)]
    arguments = {"eps": 2e-3, "n_steps_each": 1, "renoise": True, "denoise": True}
    x = sample(models, "LRS-2-up-HRS-3", n, progress=False, **arguments).double().flatten(1)
    data = [fit(model, [model.shape])[0] for model in models]
    renoised, plain = (
        stages_of("LRS-2-up-HRS-3", 2, 2e-3, 1, True, ladder.tolist(), renoise=renoise) for renoise in (True, False)
    )
    mean, covariance = evolve(renoised, data).pixels()
    other = evolve(plain, data).pixels()[1]
    variance = covariance.diagonal()
    apart = (x.mean(0) - mean.flatten()).abs() / (variance / n).sqrt()
    assert apart.max() < 4
    spread = ((variance[:, None] * variance + covariance**2) / n).sqrt()
    assert ((torch.cov(x.T) - covariance).abs() / spread).max() < 4.5  # the largest of 136 entries
    assert ((other - covariance).abs() / spread).max() > 20  # the test tells renoise from none


# --- what is refused ---
@pytest.mark.parametrize(
    "action, message",
    [
        (lambda d: evolve([], d), "stages must hold at least one, got none"),
        (lambda d: evolve([Run(0, ())], d, init="zeros"), "init must be one of uniform, normal, got 'zeros'"),
        (lambda d: evolve([Upsample(1)], d, upsample="lanczos"), "upsample must be one of bicubic, bicubic-pil, bilin"),
        (lambda d: evolve([Upsample(1)], d, upsample=torch.nn.Identity()), "upsample must be one of .*, got Identity"),
        (
            lambda d: evolve([Run(0, (Row(0, 1.0, 0.1, 0.1, 0, paste=AFTER),))], d),
            "stages must be those of a run without known pixels, got a row that sets them",
        ),
        (
            lambda d: evolve([Upsample(1)], [d[0], d[2]]),
            r"shapes must double from one resolution to the next, \(1, 2, 2\) to \(1, 4, 4\), got \(1, 8, 8\)",
        ),
        (
            lambda d: evolve([Upsample(1)], [d[0], fit(GaussianField((1, 4, 4)), stationary=True)[1]]),
            "data must be dense at all resolutions or stationary at all, got both",
        ),
        (
            lambda d: GaussianData.dense((1, 1, 2), torch.zeros(2), -eye(2)),
            "covariance must be positive semi-definite, got the eigenvalue -1",
        ),
        (lambda d: fit(torch.zeros(1, 1, 4, 4)), r"data must hold at least two finite images .*, got \(1, 1, 4, 4\)"),
        (lambda d: fit(torch.full((2, 1, 4, 4), torch.nan)), "data must hold at least two finite images"),
        (
            lambda d: fit(torch.zeros(2, 1, 4, 4), [(1, 3, 3), (1, 4, 4)]),
            r"shapes must double from one to the next up to that of data, \(1, 4, 4\), got",
        ),
        (lambda d: fit(torch.zeros(2, 1, 5, 4)), "shapes must double from one to the next up to that of data"),
        (lambda d: fit(torch.zeros(2, 1, 4, 4), []), "shapes must double from one to the next up to that of data"),
        (lambda d: fit(torch.zeros(2, 1, 64, 64), stationary=False), "stationary must be True above 1024 values"),
        (lambda d: fit(GaussianField((1, 128, 64))), "at most 4096 values an image if it is an exact field"),
    ],
)
def test_wrong_values_are_refused_in_one_sentence(field, action, message):
    with pytest.raises(ValueError, match=f"^tune: .*{message}"):
        action(field)


@pytest.mark.parametrize("data", [torch.zeros(2, 1, 4, 4, dtype=torch.uint8), "digits", None])
def test_data_of_another_kind_is_refused(data):
    with pytest.raises(TypeError, match="^tune: argument data must be a dataset of langevin_ext.data, a float tensor"):
        fit(data)
