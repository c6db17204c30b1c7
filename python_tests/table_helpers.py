"""What the tests of tables share: fields small enough for tables in a second, and their settings."""

from langevin_ext import sample
from langevin_ext.scores import GaussianField

FIELD = GaussianField((1, 4, 4))
PAIR = [FIELD.pooled(2), FIELD]
SETTINGS = {"n_steps_each": 2, "batch_size": 20, "seed": 5}
QUICK = {"samples": 50, "n": 20, "progress": False, "time_rows": False, **SETTINGS}
IMAGES = [model.sample(60, seed=1) for model in PAIR]


def own_sample(scheme, n=50, models=PAIR, **settings):
    return sample(models, scheme, n, progress=False, **({"denoise": False} | SETTINGS | settings))
