"""The moving average of the weights against its closed form."""

import pytest
import torch

from langevin_ext.training import EMA


class Weights(torch.nn.Module):
    def __init__(self, value):
        super().__init__()
        self.w = torch.nn.Parameter(torch.full((3,), value, dtype=torch.float64))
        self.fixed = torch.nn.Parameter(torch.ones(2, dtype=torch.float64), requires_grad=False)
        self.register_buffer("mean", torch.zeros(2, dtype=torch.float64))
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))


def run(ema, model, values):
    for k, value in enumerate(values, 1):
        with torch.no_grad():
            model.w.fill_(value)
            model.mean.fill_(10 * value)
            model.count.fill_(k)
        ema.update(model)
    return ema.state_dict()


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.9, 0.999])
def test_closed_form(decay):
    # theta' = m^n theta_0 + (1 - m) sum_k m^(n-k) theta_k
    values = [2.0, -1.0, 4.0, 0.5, 3.0]
    model = Weights(7.0)
    average = run(EMA(model, decay), model, values)
    n = len(values)
    expected = decay**n * 7.0 + (1 - decay) * sum(decay ** (n - k) * v for k, v in enumerate(values, 1))
    torch.testing.assert_close(average["w"], torch.full((3,), expected, dtype=torch.float64), rtol=1e-14, atol=1e-14)


def test_default_decay_and_buffers():
    model = Weights(1.0)
    ema = EMA(model)
    average = run(ema, model, [2.0, 2.0])
    torch.testing.assert_close(average["w"], torch.full((3,), 2 - 0.999**2, dtype=torch.float64), rtol=1e-14, atol=0)
    assert torch.equal(average["mean"], torch.full((2,), 20.0, dtype=torch.float64))  # copied, not averaged
    assert average["count"].item() == 2
    assert torch.equal(average["fixed"], torch.ones(2, dtype=torch.float64))


def test_warm_up():
    # m_n = min(.5, (1+n)/(10+n)): 2/11, 3/12, 4/13, ..., .5 from n = 8 on
    model = Weights(1.0)
    average = run(EMA(model, 0.5, warmup=True), model, [0.0] * 9)
    expected = 1.0
    for n in range(1, 10):
        expected *= min(0.5, (1 + n) / (10 + n))
    torch.testing.assert_close(average["w"], torch.full((3,), expected, dtype=torch.float64), rtol=1e-14, atol=0)


def test_equal_weights_stay_equal():
    model = torch.nn.Linear(5, 4)
    ema = EMA(model, 0.999)
    for _ in range(20):
        ema.update(model)
    assert all(torch.equal(value, ema.state_dict()[name]) for name, value in model.state_dict().items())


def test_average_is_its_own_memory():
    model = Weights(1.0)
    ema = EMA(model, 0.9)
    with torch.no_grad():
        model.w.fill_(5.0)
    assert torch.equal(ema.state_dict()["w"], torch.ones(3, dtype=torch.float64))


def test_shared_weights_are_averaged_under_both_names():
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2))
    model[1].weight = model[0].weight
    ema = EMA(model, 0.5)
    with torch.no_grad():
        model[0].weight.add_(1.0)
    ema.update(model)
    assert torch.equal(ema.state_dict()["0.weight"], ema.state_dict()["1.weight"])
    assert not torch.equal(ema.state_dict()["0.weight"], model[0].weight)


def test_continued_equals_undisturbed():
    whole, model = Weights(1.0), Weights(1.0)
    expected = run(EMA(whole, 0.9, warmup=True), whole, [2.0, 3.0, 4.0, 5.0])
    first = EMA(model, 0.9, warmup=True)
    run(first, model, [2.0, 3.0])
    second = EMA(model, 0.9, warmup=True)
    second.load_state_dict(first.state_dict(), 2)
    assert torch.equal(run(second, model, [4.0, 5.0])["w"], expected["w"])


@pytest.mark.parametrize("decay", [1.0, -0.1, float("nan")])
def test_wrong_decay(decay):
    with pytest.raises(ValueError, match=r"EMA: decay must be in \[0, 1\), got"):
        EMA(Weights(1.0), decay)
