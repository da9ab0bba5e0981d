"""Seconds and memory of φ, Π and R."""

import json
import subprocess
import sys
from typing import Any

IMAGES, DIMENSIONS, CLASSES = 50_000, 512, 100

# Runs in a process of its own, whose peak is that of the measures and not of what ran before.
SCRIPT = """
import json, resource, sys, time
import psutil, torch
from studylib.measures import class_centres, discriminative_ratio, mixtureness, redundancy

def peak():
    if sys.platform == "linux":  # where ru_maxrss would start at the peak of the parent
        return int(open("/proc/self/status").read().split("VmHWM:")[1].split()[0]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

def phi(x, y):
    return discriminative_ratio(x, y).phi

def pi(x, y):
    half = int(y.max() + 1) // 2
    centres = class_centres(x, y)
    return mixtureness(centres[:half], centres[half:])

def r(x, y):
    return redundancy(x)

images, dimensions, classes, threads = map(int, sys.argv[1:])
torch.set_num_threads(threads)
small = torch.rand(2 * classes, dimensions), torch.arange(2 * classes) % classes
for measure in (phi, pi, r):
    measure(*small)  # libraries load
before = psutil.Process().memory_info().rss
x = torch.randn(images, dimensions, generator=torch.Generator().manual_seed(0)).relu_()
y = torch.arange(images) % classes
found = {}
for measure in (phi, pi, r):
    started = time.perf_counter()
    measure(x, y)
    found[measure.__name__] = time.perf_counter() - started
print(json.dumps({"seconds": found, "memory": (peak() - before) / (x.numel() * x.element_size())}))
"""


def measures_seconds() -> dict[str, Any]:
    """Seconds of φ, Π and R together, on 50,000 × 512 float32 features of 100 classes."""
    found = measure()
    details = ", ".join(f"{name} {value:.2f} s" for name, value in found["seconds"].items()) + f", {found['threads']} threads"
    total = sum(found["seconds"].values())
    return {"name": "measures_seconds", "value": total, "unit": "s", "target": "", "details": details}


def measures_memory() -> dict[str, Any]:
    """Peak memory of φ, Π and R on the same features, as a multiple of the features, the features included."""
    details = "peak resident memory of a process of its own less what it had before, features included"
    return {"name": "measures_memory", "value": measure()["memory"], "unit": "× features", "target": "< 3", "details": details}


def measure() -> dict[str, Any]:
    import torch

    threads = torch.get_num_threads()
    sizes = [str(number) for number in (IMAGES, DIMENSIONS, CLASSES, threads)]
    done = subprocess.run([sys.executable, "-c", SCRIPT, *sizes], check=True, capture_output=True, text=True)
    return json.loads(done.stdout) | {"threads": threads}
