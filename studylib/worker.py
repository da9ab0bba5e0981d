"""One job in a process of its own: ``python -m studylib.worker task.json`` trains the run and evaluates it."""

import json
import sys
from pathlib import Path

import torch

from studylib.config import from_dict
from studylib.errors import InputError, RunError
from studylib.evaluate import evaluate, from_task
from studylib.training import Run, train


def main(file: str) -> int:
    """Exit code: 0 done, 2 bad input, 1 failed, 75 stopped by SIGTERM with everything saved."""
    task = json.loads(Path(file).read_text())
    if not torch.cuda.is_available():
        torch.set_num_threads(1)
    try:
        run = Run(from_dict(task["config"]))
        train(run.config)
        with run.locked():
            for evaluation in task["evaluations"]:
                evaluate(run, from_task(evaluation))
        print(f"{run.config.name} evaluated")
    except (InputError, RunError) as error:
        print(f"error: {error}")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
