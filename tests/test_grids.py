"""The named grids: what they vary, and that every run of them can take a step."""

import json
from collections import Counter
from dataclasses import asdict, replace
from itertools import product

import pytest
import torch

from studylib import cost, data, grids, report, study
from studylib.config import changed, resolve
from studylib.evaluation.evaluate import parts
from studylib.evaluation.probe import name_of
from studylib.method_table import METHODS, OF_THE_PAPERS
from studylib.methods import METHODS as CLASSES
from studylib.methods import Batch
from studylib.scale import scale, scales
from studylib.training import Run


@pytest.mark.parametrize("grid", grids.GRIDS)
def test_every_run_takes_a_step(grid):
    for config in {job.config for job in grids.GRIDS[grid]("smoke", 1)}:
        torch.manual_seed(0)
        model = CLASSES[config.method](config, 4, torch.full((3,), 0.5), torch.full((3,), 0.25)).train()
        views = [torch.rand(6, 3, view.size or 32, view.size or 32) for view in model.views]
        for step in range(2):
            progress = torch.tensor(0.5 * step, dtype=torch.float64)
            batch = Batch(views, torch.arange(6) % 4, torch.arange(6) + 6 * step, progress, model.phase(0.5 * step))
            loss, _ = model.loss(batch)
            loss.backward()
            model.before_step(batch)
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


@pytest.mark.parametrize("name", sorted(scales()))
def test_a_scale_plans_rows_that_exist(name):
    plan = scale(name).seeds
    assert set(plan) <= set(grids.GRIDS)
    for grid in [grid for grid in plan if not (name == "paper" and grid in ("protocols", "fine_tuning"))]:  # need its images
        count = plan[grid]
        every = list(dict.fromkeys(job.variant for job in grids.GRIDS[grid](name, 1)))
        wanted = count if isinstance(count, dict) else dict.fromkeys(every, count)
        assert set(wanted) <= set(every)
        found = Counter(job.variant for job in grids.GRIDS[grid](name))
        assert found == Counter({variant: number for variant, number in wanted.items() if number})


def test_a_grid_without_a_plan_is_empty_until_seeds_are_given():
    assert grids.trex_crops("quick") == []
    assert len(grids.trex_crops("quick", 2)) == 8


@pytest.mark.parametrize("name", sorted(scales()))
def test_a_scale_publishes_rows_that_exist(name):
    plan, published = scale(name).seeds, scale(name).published
    assert set(published) <= set(grids.GRIDS)
    for grid, count in published.items():
        every = {job.variant for job in grids.GRIDS[grid](name, 1)}
        assert set(count if isinstance(count, dict) else ()) <= every
        found = Counter(job.variant for job in grids.GRIDS[grid](name, grids.PUBLISHED))
        for variant in every:
            both = [of.get(variant, 0) if isinstance(of, dict) else of for of in (plan.get(grid, 0), count)]
            assert found[variant] == max(both)


def test_seeds_are_of_every_row_whatever_is_planned():
    plan = scale("smoke").seeds["methods"]
    assert {job.variant for job in grids.methods("smoke")} == set(plan)
    found = Counter(job.variant for job in grids.methods("smoke", 4))
    assert set(found.values()) == {4} and len(found) > len(plan)


def test_claims_are_judged_by_what_else_was_trained(tmp_path, monkeypatch):
    monkeypatch.setenv("STUDYLIB_RUNS", str(tmp_path))
    monkeypatch.setenv("STUDYLIB_PUBLISHED", "off")
    planned = grids.methods("quick")
    assert grids.trained("methods", "quick") == planned
    others = [job for job in grids.methods("quick", 14) if job not in planned]
    for job in others:
        run = Run(job.config)
        run.snapshot().parent.mkdir(parents=True, exist_ok=True)  # rows of one grid can be the same run
        run.snapshot().touch()
        (run.folder / "DONE").touch()
    found = grids.trained("methods", "quick")
    assert {job.config for job in found if not job.beyond} == {job.config for job in planned}
    assert {job.config for job in found if job.beyond} == {job.config for job in others if job.config.seed < 12}
    assert len(found) == len({job.config for job in found})


def test_methods_are_all_and_random_weights_are_asked_of_sl():
    jobs = grids.methods("quick", 1)
    assert {job.config.method for job in jobs} == set(METHODS)
    for job in jobs:
        at_start = [evaluation for evaluation in job.evaluations if evaluation.epoch == 0]
        assert bool(at_start) == (job.config.method == "sl")
    rated = {replace(job.config.optimisation, lr=0.1) for job in jobs}  # rates are each method's own, chosen by one rule
    assert len(rated) == len({(job.config.encoder, job.config.data) for job in jobs}) == 1


@pytest.mark.parametrize("grid", grids.GRIDS)
def test_nothing_is_asked_twice_of_a_run(grid):
    """Twice the same rows would be two values of one seed."""
    for job in grids.GRIDS[grid]("quick", 1):
        asked = Counter(
            (part.dataset, part.epoch, part.layer, part.task) for evaluation in job.evaluations for part in parts(evaluation)
        )
        twice = [part for part, count in asked.items() if count > 1 and part[3] != "none"]
        assert not twice, (job.variant, twice[:3])


def test_features_are_measured_at_the_end_and_along_training():
    content = scale("quick")
    for job in grids.features("quick"):
        assert len(set(job.evaluations)) == len(job.evaluations)
        start = {0} if job.variant == "sl" else set()
        along = {0, 1, 2, 4, 8, 16} if job.config.seed == 0 else start
        found = {
            (kind, name): {e.epoch for e in job.evaluations if e.dataset == name and bool(e.protocols) == (kind == "probed")}
            for kind in ("measured", "probed")
            for name in (content.upstream, content.unseen[0])
        }
        own = along if job.variant in OF_THE_PAPERS else start
        assert found["measured", content.upstream] >= {None} | own
        assert found["measured", content.unseen[0]] == {None} | start
        assert found["probed", content.unseen[0]] == {None} | (along if job.variant in METHODS else start)


def test_features_of_the_first_seed_are_measured_at_every_layer():
    upstream = scale("quick").upstream
    for job in grids.features("quick"):
        asked = [e for e in job.evaluations if e.dataset == upstream and e.measures in ("all", "spectrum")]
        layers = {
            kind: [layer for e in asked if e.measures == kind and e.epoch is None for layer in e.layers]
            for kind in ("all", "spectrum")
        }
        for found in layers.values():
            assert sorted(found) == sorted(grids.LAYERS if job.config.seed == 0 else ["stage5"])  # none of them twice
        own = {0, 1, 2, 4, 8, 16} if job.config.seed == 0 and job.variant in OF_THE_PAPERS else set()
        moments = {None} | own | ({0} if job.variant == "sl" else set())
        assert {e.epoch for e in asked if e.measures == "spectrum"} == moments


def test_modes_are_looked_for_by_their_number_as_well():
    for job in grids.modes("quick"):
        kinds = [e.measures for e in job.evaluations if e.dataset == job.config.data]
        assert kinds == ["all", "modes", "none"]


def test_prototypes_are_asked_of_heads_behind_a_projector():
    for job in grids.trex_buildup("quick", 2):
        found = [e for e in job.evaluations if e.measures == "prototypes"]
        assert {(e.dataset, e.layers) for e in found} <= {(job.config.data, ("projector",))}
        along = [0, 1, 2, 4, 8, 16] if job.config.seed == 0 else []
        assert [e.epoch for e in found] == ([None, *along] if job.variant in ("+ projector", "+ OCM") else [])


def test_what_the_grids_vary():
    def of(grid):
        return {job.variant: job.config for job in grids.GRIDS[grid]("quick", 1)}

    depths = of("projector")
    assert [depths[f"depth {depth}"].projector.hidden_layers for depth in range(4)] == [0, 1, 2, 3]
    base = depths["depth 1"].projector
    assert base == resolve("quick", "sl_mlp").projector
    changed_parts = [
        {name: value for name, value in asdict(config.projector).items() if value != asdict(base)[name]}
        for variant, config in depths.items()
        if not variant.startswith("depth")
    ]
    assert changed_parts == [{"width": 128}, {"out": 32}, {"input_l2": True}, {"batch_norm": False}]
    neighbours = of("look_neighbours")
    assert [config.look.k for config in neighbours.values()] == [40, 10, 20, 2048, 40, 40, 40]
    assert [config.temperature for config in neighbours.values()] == [0.05, 0.05, 0.05, 0.05, 0.025, 0.1, 0.05]
    assert neighbours["bank 4096"].bank.length == 4096
    start, crops, projected, ocm, look = of("trex_buildup").values()
    assert not start.projector.exists and start.multi_crop.local_crops == 0
    assert not crops.projector.exists and crops.multi_crop.local_crops == 2
    assert projected.projector.exists and projected.method == "trex_plain"
    assert ocm == resolve("quick", "trex")
    assert look.multi_crop == ocm.multi_crop and look.method == "look"
    assert [config.projector.hidden_layers for config in of("trex_depth").values()] == [0, 1, 2, 3]
    assert len({(c.augmentation, c.multi_crop) for c in of("trex_depth").values()}) == 1  # crops are fixed
    parts = of("trex_parts")
    assert parts["base"] == ocm and not parts["no input l2"].projector.input_l2
    assert [config.temperature for config in parts.values()] == [0.05, 0.05, 0.05, 0.05, 0.025, 0.1]
    assert {config.bank.length for config in of("trex_memory").values()} == {1024, 4096, 16384}
    assert changed(of("trex_memory")["random start, dropped tail"])["bank"].items() >= {("start", "random"), ("tail", "drop")}
    scales = {(c.method, c.augmentation.crop_scale, c.multi_crop.local_scale) for c in of("trex_crops").values()}
    assert len(scales) == 4
    assert {config.look.start for config in of("look_starts").values()} == {"fixed", "filled", "ramp", "warmup", "falling"}
    for variant, config in of("with_and_without").items():
        assert config.projector.exists == (variant.endswith(" on") or variant == "moco_v1 off")
    without, mlp = (of("with_and_without")[f"moco_v1 {end}"].projector.hidden_layers for end in ("off", "on"))
    assert (without, mlp) == (0, 1)  # MoCo v1 itself has a linear layer
    assert {config.encoder.arch for config in of("backbones").values()} == {"resnet10", "resnet18"}
    strong = of("strong_recipe")["strong"]
    assert strong.optimisation.epochs == 2 * resolve("quick", "sl").optimisation.epochs
    assert strong.cross_entropy.label_smoothing == 0.1


def test_every_run_is_asked_how_far_it_has_learned_its_own_classes():
    for name, grid in grids.GRIDS.items():
        for job in grid("quick", 1) if name != "tuning" else ():
            own = [e for e in job.evaluations if e.dataset == job.config.data and e.epoch is None and "stage5" in e.layers]
            asked = Counter(name_of(protocol) for e in own for protocol in e.protocols)
            assert asked["train_linear"] == asked["linear"] == asked["knn"] == 1, (name, job.variant)


def test_settings_are_tried_on_a_tenth_of_the_training_images_and_on_nothing_else():
    jobs = grids.tuning("quick", 1)
    tried = Counter(job.config.method for job in jobs)
    assert tried["sl"] == tried["look"] == 8 and set(tried) == set(scale("quick").tuning)
    for job in jobs:
        assert job.config.data == "glyphs:held_out" and {e.dataset for e in job.evaluations} == {"glyphs:held_out"}
    looks = {(c.optimisation.lr, c.look.k, c.temperature) for c in (job.config for job in jobs) if c.method == "look"}
    assert looks == set(product((0.1, 0.3), (20, 40), (0.05, 0.1)))


CLASSES_OF = {"smoke": 4, "quick": 36, "small_cpu": 8, "small": 70, "paper": 1000}


@pytest.mark.parametrize("name", sorted(scales()))
def test_look_has_fewer_neighbours_than_the_memory_has_keys_of_a_class_and_the_projector_of_its_rivals(name):
    look = resolve(name, "look")
    assert look.look.k < look.bank.length / CLASSES_OF[name]
    assert look.projector.hidden_layers == resolve(name, "sl_mlp").projector.hidden_layers == 1


def test_the_settings_of_quick_are_the_best_that_were_tried_of_equal_ones_the_first(monkeypatch):
    monkeypatch.setenv("STUDYLIB_PUBLISHED", "on")
    table = report.tuning(study.table(grids.tuning("quick")))
    assert {"SL", "SL-MLP", "LOOK"} <= set(table["Method"])
    for _, rows in table.groupby("Method"):
        assert list(rows[""][rows[""] != "·"]) == ["best, taken"]


def test_what_is_left_out_is_told_with_the_command_that_runs_it():
    assert grids.left_out("trex_crops", "quick") == (
        "left out: studylib/scales/quick.yaml does not plan it; add trex_crops to its seeds,"
        " or run the grid alone: studylib grid trex_crops --scale quick --seeds 1"
    )
    assert grids.left_out("modes", "paper") == "left out: grid modes has no runs at scale paper"


def test_cost_counts_runs_images_and_minutes_where_the_speed_is_known():
    jobs = grids.comparison("smoke", 2)
    images = sum((data.load("glyphs/few").split == 0).tolist()) // 64 * 64 * 2  # whole batches, two epochs
    said = f"4 runs, 4 to be computed, 4 of them to be trained: {4 * images / 1e6:.1f} million images"
    assert jobs[0].config.optimisation.batch == 64 and cost.cost([*jobs, jobs[0]]) == said
    run = Run(jobs[0].config)
    run.folder.mkdir()
    rows = [{"epoch": epoch, "images_per_s": images / 2 / 60} for epoch in (1, 2)]  # an epoch a minute
    (run.folder / "timing.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (run.folder / "metrics.jsonl").write_text("".join(json.dumps({"epoch": row["epoch"]}) + "\n" for row in rows))
    assert ", 3 of them to be trained: " in cost.cost(jobs)
    assert cost.cost(jobs).endswith("about 2 minutes of one worker for the 1 of which the speed is known")
    assert cost.cost(jobs[:2]).endswith("about 2 minutes of one worker") or jobs[1].config.method != jobs[0].config.method
