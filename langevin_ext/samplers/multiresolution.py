"""Annealed Langevin dynamics over several resolutions (arXiv:2006.11166, Algorithm 2). Line numbers are its own."""

from ..schedules import check_eps
from .langevin import anneal, denoising, paste_time, reference_level
from .names import Scheme
from .table import Run, Upsample


def multiresolution(
    ladders,
    *,
    scheme: Scheme,
    eps,
    n_steps_each,
    denoise,
    inpainting=False,
    sigma_ref=None,
    renoise=False,
    inpaint_order="paper",
) -> list[Run | Upsample]:
    """The stages of a scheme over models of growing resolution.

        for j in resolutions:                                            (line 4)
            for sigma_i in levels of the scheme at j:                    (line 5)
                step_size = eps_j (sigma_i / sigma_ref)^2                (line 6)
                x = x + step_size/2 score_j(x, i) + sqrt(step_size) z    n_steps_each times (lines 7 to 10)
            x = upsample(x)                                              (line 12), not after the last resolution
            x = x + sigma z, sigma the next level                        if renoise (not in the paper)
        x = x + sigma^2 score(x, last level run)                         if denoise (not in the paper)

    Args:
        ladders: sigmas of each model, coarsest first.
        scheme: which levels run with which model.
        eps, n_steps_each: of each model.
        denoise: make the last line's update with the model that ran last, before an upsampling that ends the scheme.
        inpainting: known pixels are set at each level.
        sigma_ref: the level at which the step is eps: None, the last of the model's ladder, whatever levels are run;
            "stage", the last that is run at this resolution, as Algorithm 2 has it; or a number.
        renoise: after upsampling, add the noise of the level at which the next resolution starts; nothing after an
            upsampling that ends the scheme.
        inpaint_order: see `annealed`.

    Returns:
        the stages.
    """
    if not isinstance(renoise, bool):
        raise ValueError(f"sample: option renoise must be True or False, got {renoise!r}")
    stages: list[Run | Upsample] = []
    paste = paste_time(inpainting, inpaint_order)
    model, k, levels, ups = scheme.segments[0].model, 0, 0, 0  # k steps, levels and upsamplings were before
    for number, segment in enumerate(scheme.segments):
        ladder, last = ladders[segment.model], number == len(scheme.segments) - 1
        while model < segment.model:
            model, ups = model + 1, ups + 1
            starts = renoise and model == segment.model
            stages.append(Upsample(model, ladder[segment.first] if starts else 0.0, ups - 1))
        reference = reference_level(sigma_ref, ladder, segment.last)
        check_eps(eps[model], reference, "sample")
        span = range(segment.first, segment.last + 1)
        rows = anneal(ladder, span, eps[model], reference, n_steps_each[model], k=k, paste=paste, number=levels)
        k, levels = k + len(rows), levels + len(span)
        if last and denoise:
            rows.append(denoising(segment.last, ladder[segment.last], k))
        stages.append(Run(model, tuple(rows)))
    while model < scheme.output:
        model, ups = model + 1, ups + 1
        pasted = ladder[segment.last] if inpainting and model == scheme.output else None
        stages.append(Upsample(model, 0.0, ups - 1, paste_sigma=pasted, paste_step=levels))
    return stages
