"""One job in a process of its own: ``python -m studylib.worker job.pickle`` trains the run and evaluates it."""

import pickle
import sys
from pathlib import Path

import torch

from studylib.errors import InputError, RunError
from studylib.evaluate import evaluate
from studylib.training import Run, train


def main(file: str) -> int:
    """Exit code: 0 done, 2 bad input, 1 failed, 75 stopped by SIGTERM with everything saved."""
    job = pickle.loads(Path(file).read_bytes())
    if not torch.cuda.is_available():
        torch.set_num_threads(1)
    try:
        run = Run(job.config)
        train(run.config)
        with run.locked():
            for evaluation in job.evaluations:
                evaluate(run, evaluation)
        print(f"{run.config.name} evaluated")
    except (InputError, RunError) as error:
        print(f"error: {error}")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
