"""The named grids: what they vary, and that every run of them can take a step."""

import pytest
import torch

from studylib import grids
from studylib.config import METHODS, changed, resolve, scale
from studylib.methods import METHODS as CLASSES
from studylib.methods import Batch

ABLATIONS = [
    name for name in grids.GRIDS if name not in ("comparison", "methods", "protocols")
]  # as many seeds as the study has


@pytest.mark.parametrize("grid", grids.GRIDS)
def test_every_run_takes_a_step(grid):
    for config in {job.config for job in grids.GRIDS[grid]("smoke")}:
        torch.manual_seed(0)
        model = CLASSES[config.method](config, 4, torch.full((3,), 0.5), torch.full((3,), 0.25)).train()
        views = [torch.rand(6, 3, view.size or 32, view.size or 32) for view in model.views]
        for step in range(2):
            batch = Batch(views, torch.arange(6) % 4, torch.arange(6) + 6 * step, 0.5 * step)
            loss, _ = model.loss(batch)
            loss.backward()
            model.after_step(batch)
        assert torch.isfinite(loss), config.name
        waits = config.method == "look" and config.look.start == "filled"  # for a full bank
        assert waits or any(parameter.grad is not None and parameter.grad.any() for parameter in model.encoder.parameters())


@pytest.mark.parametrize("grid", grids.GRIDS)
@pytest.mark.parametrize("name", ["smoke", "quick"])
def test_variants_differ_and_seeds_count(grid, name):
    jobs = grids.GRIDS[grid](name, 2)
    variants = list(dict.fromkeys(job.variant for job in jobs))
    assert len(jobs) == 2 * len(variants)
    configs = {job.variant: job.config for job in jobs if job.config.seed == 0}
    assert len(set(configs.values())) == len(variants)


def test_ablations_take_the_seeds_of_their_scale():
    for grid in ABLATIONS:
        assert len({job.config.seed for job in grids.GRIDS[grid]("quick")}) == scale("quick")["ablation_seeds"]
        assert grids.GRIDS[grid]("small_cpu") == []  # whose number is 0


def test_methods_are_all_and_random_weights_are_asked_of_sl():
    jobs = grids.methods("quick")
    assert {job.config.method for job in jobs} == set(METHODS)
    assert len(jobs) == 3 * len(METHODS)
    for job in jobs:
        at_start = [evaluation for evaluation in job.evaluations if evaluation.epoch == 0]
        assert bool(at_start) == (job.config.method == "sl")
    assert len({(job.config.optimisation, job.config.encoder, job.config.data) for job in jobs}) == 1  # one recipe


def test_what_the_grids_vary():
    def of(grid):
        return {job.variant: job.config for job in grids.GRIDS[grid]("quick")}

    depths = {config.projector.hidden_layers for config in of("projector").values()}
    assert depths == {0, 1, 2, 3}
    for depth in (1, 2, 3):
        settings = [config.projector for config in of("projector").values() if config.projector.hidden_layers == depth]
        assert len(settings) == 5
        assert {(p.width, p.out, p.input_l2, p.batch_norm) for p in settings} == {
            (512, 128, False, True),
            (128, 128, False, True),
            (512, 32, False, True),
            (512, 128, True, True),
            (512, 128, False, False),
        }
    neighbours = of("look_neighbours").values()
    assert {config.look.k for config in neighbours} == {25, 200, 800, 2048}
    assert {config.temperature for config in neighbours} == {0.05, 0.1, 0.2}
    assert len(neighbours) == 12
    base, crops, projected, ocm = of("trex_buildup").values()
    assert not base.projector.exists and base.multi_crop.local_crops == 0
    assert not crops.projector.exists and crops.multi_crop.local_crops == 2
    assert projected.projector.exists and projected.method == "trex_plain"
    assert ocm == resolve("quick", "trex")
    assert {config.bank.length for config in of("trex_memory").values()} == {1024, 2048, 4096, 8192, 16384}
    assert {"bank": {"start": "random", "tail": "drop"}}.items() <= {
        "bank": {name: changed(of("trex_memory")["random start, dropped tail"])["bank"][name] for name in ("start", "tail")}
    }.items()
    scales = {(c.method, c.augmentation.crop_scale, c.multi_crop.local_scale) for c in of("trex_crops").values()}
    assert len(scales) == 4
    assert {config.look.start for config in of("look_starts").values()} == {"fixed", "filled", "ramp", "warmup", "falling"}
    for variant, config in of("with_and_without").items():
        assert config.projector.exists == variant.endswith(" on")
