"""Time of one training step of NCSN: our `Trainer` against the released network's eager computation (official.py).

A step draws noise levels, perturbs, evaluates the network, takes the denoising score matching loss, its gradient and an
Adam step; no average. Errors are of the gradient in all weights, by norm, relative to the official one in float64 from
the same weights, images and noise.

python benchmarks/training.py --size 32 --batch 4 [--profile]
"""

import functools
import pathlib

import torch
from official import official_forward
from timing import append_rows, interleaved, network_parser, network_rows, print_network_rows

from langevin_ext import losses, noise
from langevin_ext.models import NCSN
from langevin_ext.training import Settings, Trainer

RESULTS = pathlib.Path(__file__).resolve().parent / "results" / "training.jsonl"
TOLERANCES = {"float32": 1e-4, "bfloat16": 0.2}


def main():
    """Checks gradients, times, appends the rows and prints the table."""
    args = parse()
    if args.threads:
        torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    shape = (args.channels, args.size, args.size)
    data = torch.rand(4 * args.batch, *shape)
    trainers, errors = implementations(shape, args, data), {}
    expected = gradient(trainers["official eager", "float32"].mean_loss, data[: args.batch], torch.float64)
    for (name, dtype), trainer in trainers.items():
        found = gradient(trainer.mean_loss, data[: args.batch], torch.float32, dtype == "bfloat16")
        errors[name, dtype] = ((found - expected).norm() / expected.norm()).item()
        if not errors[name, dtype] <= TOLERANCES[dtype]:
            raise SystemExit(f"training: {name} {dtype} has a gradient that is off by {errors[name, dtype]:.1e}")
    if args.profile:
        return profile(trainers["langevin_ext", "float32"])
    steps = {name: trainer.update for name, trainer in trainers.items()}
    rows = network_rows("training", args, interleaved(steps, args.repeats, args.warmup), errors)
    append_rows(args.output, rows)
    print_network_rows("training step", rows)
    return None


def parse():
    """The command line."""
    parser = network_parser(__doc__, RESULTS, repeats=7, warmup=2)
    parser.add_argument("--bf16", action="store_true", help="also ours under bfloat16 autocast")
    parser.add_argument("--profile", action="store_true", help="print where the time of ours goes instead")
    return parser.parse_args()


def implementations(shape, args, data):
    """{(name, dtype): what has `update()` and `mean_loss(dtype, x, level, z)`}, all from the same weights."""
    model = NCSN(shape, args.ngf)
    found = {("official eager", "float32"): Official(model, data, args.batch)}
    for name, dtype, winograd in (
        ("langevin_ext", "float32", True),
        ("the same by oneDNN alone", "float32", False),
        ("langevin_ext", "bfloat16", True),
    ):
        if dtype == "bfloat16" and not args.bf16:
            continue
        own = NCSN(shape, args.ngf)
        own.load_state_dict(model.state_dict())
        switch(own, winograd)
        found[name, dtype] = Ours(own, data, args.batch, "bf16" if dtype == "bfloat16" else "fp32")
    return found


def switch(model, winograd):
    """Lets the convolutions of a model be computed by F(4x4, 3x3), or not."""
    for module in model.modules():
        if hasattr(module, "winograd"):
            module.winograd = winograd


def gradient(objective, x, dtype, autocast=False):
    """The gradient of the mean loss in all weights, as one vector of float64."""
    level = torch.arange(len(x)) % 10
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        loss, parameters = objective(dtype, x, level, noise.normal(x.shape, 0, step=0, stream=noise.DSM))
    return torch.cat([g.flatten().double() for g in torch.autograd.grad(loss, parameters)])


class Official:
    """The released training step: plain torch, NCHW, Adam with torch's defaults."""

    def __init__(self, model, data, batch):
        self.data, self.batch, self.sigmas = data, batch, model.sigmas
        names = [name for name, _ in model.named_parameters()]
        state = {name: value.detach().contiguous().clone() for name, value in model.state_dict().items()}
        self.state = {name: value.requires_grad_(name in names) for name, value in state.items()}
        self.parameters = [self.state[name] for name in names]
        self.optimizer = torch.optim.Adam(self.parameters, 1e-3, (0.9, 0.999))

    def update(self):
        """One step."""
        x = self.data[torch.randint(len(self.data), (self.batch,))]
        level = torch.randint(len(self.sigmas), (len(x),))
        self.optimizer.zero_grad()
        self.loss(self.state, x, level, torch.randn_like(x)).mean().backward()
        self.optimizer.step()

    def loss(self, state, x, level, z):
        """1/2 sigma^2 |s(x + sigma z) + z / sigma|^2 as it was released, (B,)."""
        sigma = self.sigmas.to(x)[level].view(-1, 1, 1, 1)
        noisy = x + sigma * z
        target = -1 / sigma**2 * (noisy - x)
        score = official_forward(state, noisy, level)
        return 0.5 * ((score - target) ** 2).flatten(1).sum(dim=-1) * sigma.flatten() ** 2

    def mean_loss(self, dtype, x, level, z):
        """(mean loss, parameters), computed in `dtype`."""
        state = {
            name: value.detach().to(dtype).requires_grad_(value.requires_grad) for name, value in self.state.items()
        }
        parameters = [value for value in state.values() if value.requires_grad]
        return self.loss(state, x.to(dtype), level, z.to(dtype)).mean(), parameters


class Ours(Trainer):
    """The package's."""

    def __init__(self, model, data, batch, precision):
        super().__init__(model, data, Settings(batch_size=batch, ema=None, precision=precision))
        self.dsm = functools.partial(losses.dsm, model)

    def mean_loss(self, dtype, x, level, z):
        """(mean loss, parameters); z is made again inside."""
        return self.dsm(x, level, seed=0, step=0).mean(), list(self.parameters.values())


def profile(trainer, steps=3):
    """Prints the operators of some steps, the slowest first."""
    trainer.update()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as found:
        for _ in range(steps):
            trainer.update()
    print(found.key_averages().table(sort_by="self_cpu_time_total", row_limit=25, max_name_column_width=50))


if __name__ == "__main__":
    main()
