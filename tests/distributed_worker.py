"""One of two processes of ``test_distributed``: the loss, gradients and memory of every method on half a batch, and runs.

Usage: python distributed_worker.py FOLDER; RANK, WORLD_SIZE and a rendezvous are set as ``torchrun`` does.
"""

import sys
from pathlib import Path

import torch

from studylib import distributed
from studylib.config import resolve
from studylib.methods import METHODS, Batch
from studylib.training import Run, train

COUNT = 8  # images of the whole batch
CASES = {method: (method, {}) for method in METHODS}
CASES |= {f"look-{start}": ("look", {"look.start": start}) for start in ("warmup", "ramp")}
CASES["look-filled"] = ("look", {"look.start": "filled", "optimisation.batch": 8, "bank.length": 16})
CASES["look-nearest"] = ("look", {"look.no_positive": "nearest", "look.k": 1})
CASES["trex-averaged"] = ("trex", {"ema.buffers": "average", "bank.tail": "drop"})


def steps(method: str, overrides: dict) -> dict:
    """Losses, gradients and the state after two steps of ``method``, in float64, on this process's share of the batch."""
    settings = resolve("smoke", method, 0, overrides)
    torch.manual_seed(0)
    model = METHODS[method](settings, 4, torch.full((3,), 0.5), torch.full((3,), 0.25)).double()
    model = distributed.synchronise(model, torch.device("cpu")).train()
    loss_of = distributed.averaging(model, torch.device("cpu"))
    share = COUNT // distributed.size()
    own = slice(distributed.rank() * share, (distributed.rank() + 1) * share)
    generator = torch.Generator().manual_seed(5)
    losses, gradients = [], []
    for step in range(3):
        views = [torch.rand(COUNT, 3, view.size or 24, view.size or 24, generator=generator).double() for view in model.views]
        labels, ids = torch.arange(COUNT) % 3, torch.arange(COUNT) + COUNT * step
        progress = torch.tensor(step / 3, dtype=torch.float64)
        batch = Batch([view[own] for view in views], labels[own], ids[own], progress, model.phase(step / 3))
        loss, _ = loss_of(batch)
        model.zero_grad()
        loss.backward()
        losses.append(distributed.mean(loss.detach()))
        trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
        gradients.append({name: parameter.grad.clone() for name, parameter in trained.items() if parameter.grad is not None})
        model.before_step(batch)
        with torch.no_grad():
            for parameter in trained.values():
                if parameter.grad is not None:
                    parameter.sub_(parameter.grad, alpha=0.05)
        model.after_step(batch)
    return {"losses": torch.stack(losses), "gradients": gradients, "state": model.state_dict()}


LONG = ("trex", {"optimisation.epochs": 8, "optimisation.batch": 128, "monitor.every": 0})
"""trained to the end here, stopped and resumed by the command line"""


def uninterrupted() -> None:
    """Train `LONG` to the end and put its run aside, as ``runs/whole``."""
    config = resolve("smoke", LONG[0], 0, LONG[1])
    train(config, say=str)
    torch.distributed.barrier()
    if distributed.rank() == 0:
        Run(config).folder.rename(Run(config).folder.with_name("whole"))
    torch.distributed.barrier()


if __name__ == "__main__":
    torch.set_num_threads(1)
    with distributed.group(torch.device("cpu")):
        for name, case in CASES.items():
            torch.save(steps(*case), Path(sys.argv[1]) / f"{name}-{distributed.rank()}.pt")
        uninterrupted()
