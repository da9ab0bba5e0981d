"""A worker process: trains and evaluates the jobs it is handed, one after the other.

``python -m studylib.worker`` reads the file of a job from each line of stdin and answers on stdout with its exit code. What a
job prints is appended to ``log.txt`` in its run's folder. It stops by SIGTERM alone: Ctrl-C is the study's, which then sends
it. A worker whose study is gone, killed by SIGKILL, sends it to itself; the study gives its process id as the argument.
"""

import os
import pickle
import signal
import sys
import threading
import time
from pathlib import Path

import torch

from studylib.errors import InputError, RunError
from studylib.evaluation.evaluate import evaluate
from studylib.training import Run, train


def main() -> None:
    """Carry out jobs until stdin ends. Leaves with 75 after SIGTERM, with everything saved, and with 1 on an unknown error."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    study = int(sys.argv[1]) if len(sys.argv) > 1 else os.getppid()
    threading.Thread(target=stop_without, args=(study,), daemon=True).start()
    answers = os.fdopen(os.dup(1), "w")
    if not torch.cuda.is_available():
        torch.set_num_threads(1)
    for line in sys.stdin:
        file = Path(line.rstrip("\n"))
        with (file.parent / "log.txt").open("ab") as log:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
        code = work(file)
        sys.stdout.flush()
        print(code, file=answers, flush=True)


def work(file: Path) -> int:
    """Exit code of the job in ``file``: 0 done, 2 bad input, 1 failed."""
    job = pickle.loads(file.read_bytes())
    try:
        run = Run(job.config)
        train(run.config)
        with run.locked():
            for evaluation in job.evaluations:
                evaluate(run, evaluation)
        print(f"{run.config.name} {'evaluated' if job.evaluations else 'trained'}")
    except (InputError, RunError) as error:
        print(f"error: {error}")
        return error.exit_code
    return 0


def stop_without(study: int) -> None:
    """Stop this process, as by SIGTERM, once its parent is no longer the process ``study``; looks every second."""
    while os.getppid() == study:
        time.sleep(1)
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    main()
