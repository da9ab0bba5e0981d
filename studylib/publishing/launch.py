"""Strict notebook execution over papermill: nothing unknown is accepted, nothing failed looks like success.

papermill itself warns about an unknown parameter and runs on defaults, takes ``-p flag false`` for a true string, and
does not pass signals on. Here parameters are checked against the notebook's ``parameters`` cell before anything runs,
SIGTERM reaches the kernel, and the exit code is that of the notebook.
"""

import ast
import io
import json
import logging
import os
import signal
import sys
import threading
import tokenize
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from studylib import files, paths, values
from studylib.errors import RESUME_EXIT, InputError, RunError, choose, require
from studylib.scale import check_seeds, scales

TYPES = {"str": str, "int": int, "float": float, "bool": bool}
HOW = "each line of the parameters cell must read `name: type = value  # help` with type str, int, float or bool"


@dataclass(frozen=True, kw_only=True)
class Parameter:
    """One line of a notebook's parameters cell."""

    name: str
    type: type
    default: Any
    help: str


def declared(notebook: Path) -> dict[str, Parameter]:
    """The parameters of ``notebook`` by name, from the one cell tagged ``parameters``; none if it has no such cell.

    Raises:
        InputError: no such notebook, it cannot be read, or its parameters cell holds anything but typed scalars, or one twice.
    """
    cells = [cell for cell in read(notebook)["cells"] if "parameters" in cell.get("metadata", {}).get("tags", [])]
    require("notebook", str(notebook), len(cells) <= 1, f"{len(cells)} cells are tagged parameters; keep one")
    source = "".join(cells[0]["source"]) if cells else ""
    try:
        statements = ast.parse(source).body
        tokens = list(tokenize.generate_tokens(io.StringIO(source).readline))
    except (SyntaxError, tokenize.TokenError) as error:
        raise InputError("notebook", str(notebook), f"its parameters cell is not Python ({error.args[0]}); {HOW}") from error
    comments = {token.start[0]: token.string.lstrip("# ") for token in tokens if token.type == tokenize.COMMENT}
    found: dict[str, Parameter] = {}
    for parameter in [_parameter(statement, comments, notebook) for statement in statements]:
        require("notebook", str(notebook), parameter.name not in found, f"its parameters cell has {parameter.name} twice")
        found[parameter.name] = parameter
    return found


def _parameter(statement: ast.stmt, comments: dict[int, str], notebook: Path) -> Parameter:
    """The parameter that a typed assignment declares."""
    try:
        name, kind = statement.target.id, TYPES[statement.annotation.id]
        default = ast.literal_eval(statement.value)
    except (AttributeError, KeyError, ValueError, TypeError) as error:
        raise InputError("notebook", str(notebook), f"`{ast.unparse(statement)}`: {HOW}") from error
    if type(default) is not kind:
        raise InputError("notebook", str(notebook), f"`{ast.unparse(statement)}`: the value is not of the declared type")
    return Parameter(name=name, type=kind, default=default, help=comments.get(statement.end_lineno, ""))


def read(notebook: Path) -> dict[str, Any]:
    """The notebook's JSON.

    Raises:
        InputError: it is not there, or is not a notebook of format 4.
    """
    if not notebook.is_file():
        beside = sorted(file.name for file in notebook.parent.glob("[!.]*.ipynb")) if notebook.parent.is_dir() else []
        near = f"; there are {', '.join(beside)}" if beside else ""
        raise InputError("notebook", str(notebook), f"no such file{near}")
    try:
        content = json.loads(notebook.read_text(encoding="utf-8"))
        if content["nbformat"] == 4 and all("source" in cell for cell in content["cells"]):
            return content
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError("notebook", str(notebook), "cannot be read as a notebook; give an .ipynb file") from error
    raise InputError("notebook", str(notebook), "is not a notebook of format 4; open and save it in JupyterLab")


def checked(notebook: Path, given: dict[str, Any]) -> dict[str, Any]:
    """``given`` as the declared types of the parameters of ``notebook``, of which a scale exists and seeds are not negative.

    Raises:
        InputError: as `declared`, `coerce` and `check_scale`.
    """
    given = coerce(declared(notebook), given)
    if "scale" in given:
        check_scale(given["scale"])
    if isinstance(given.get("seeds"), int):
        check_seeds(given["seeds"])
    return given


def coerce(parameters: dict[str, Parameter], given: dict[str, Any]) -> dict[str, Any]:
    """``given`` with every value of its declared type.

    Raises:
        InputError: a name is not declared (the nearest one is named), or a value is not of the declared type.
    """
    for name in given:
        require("parameter", name, parameters, "the notebook has no parameters")
        choose("parameter", name, parameters)
    return {name: values.read(name, value, parameters[name].type) for name, value in given.items()}


def parameters_file(file: Path) -> dict[str, Any]:
    """The mapping in a YAML or JSON file, its scalars as the text that was written.

    YAML's own idea of types is left out (it reads ``1e-3`` as text, ``on`` as true and 12:30 as 750): the type is the
    declared one.

    Raises:
        InputError: the file cannot be read, is not a mapping, or has a key twice.
    """
    import yaml

    try:
        text = file.read_text(encoding="utf-8")
        content = yaml.load(text, Loader=yaml.BaseLoader)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError("parameters file", str(file), f"cannot be read as YAML ({str(error).splitlines()[0]})") from error
    require("parameters file", str(file), isinstance(content, dict), "must be a mapping such as `scale: quick`")
    values.refuse_twice("parameters file", str(file), text)
    return content


def check_scale(name: str) -> str:
    """``name`` if there is a scale of that name; known without loading anything.

    Raises:
        InputError: there is none.
    """
    return choose("scale", name, scales())


def execute(notebook: Path, parameters: dict[str, Any] | None = None, output: Path | None = None) -> int:
    """Exit code of ``notebook`` run with ``parameters`` in a kernel of this Python; the executed copy is kept in any case.

    Args:
        parameters: values by name; checked and coerced, those left out keep their defaults.
        output: the executed copy, by default ``runs/notebooks/<name>.ipynb``.

    Returns:
        0 when every cell completed; n after ``SystemExit(n)``; 2 after an `InputError`; 1 after any other exception or
        the death of the kernel; 75 when SIGTERM (or Ctrl-C) came, was passed on to the kernel, and the kernel is done
        saving. Failures are told in one line on stderr.

    Raises:
        InputError: unknown or mistyped parameter, unknown scale, negative seeds, unreadable notebook, unwritable output; all
            before anything runs.
    """
    from filelock import FileLock, Timeout

    given = checked(notebook, parameters or {})
    field = "STUDYLIB_RUNS" if output is None else "output"
    output = (output or paths.runs() / "notebooks" / notebook.name).absolute()
    require("output", str(output), output != notebook.absolute(), "is the notebook itself; name another file")
    files.writable(output, field)
    partial = output.with_suffix(".partial.ipynb")
    try:
        with FileLock(output.with_name(f".{output.name}.lock"), timeout=0):
            code, said = _run(notebook, given, partial)
            if partial.exists():
                os.replace(partial, output)
                print(f"executed copy: {output}", flush=True)
    except Timeout:
        raise InputError(
            "output", str(output), "is being written by another process; wait for it or name another file"
        ) from None
    if said:
        print(f"error: {' '.join(said.split())}", file=sys.stderr, flush=True)
    return code


def _run(notebook: Path, given: dict[str, Any], partial: Path) -> tuple[int, str]:
    """Exit code and what to say about it."""
    import papermill
    from nbclient.exceptions import DeadKernelError
    from papermill.exceptions import PapermillExecutionError

    logging.getLogger("papermill").setLevel(logging.CRITICAL)  # what it would log is said below, in one line
    kernels: list[Any] = []
    with _forwarded(kernels) as stopped:
        try:
            done = papermill.execute_notebook(
                *(str(path).replace("{", "{{").replace("}", "}}") for path in (notebook, partial)),  # papermill fills in {name}
                parameters=given,
                kernel_name="python3",
                language="python",
                progress_bar=sys.stderr.isatty(),
                stdout_file=sys.stdout,
                stderr_file=sys.stderr,
                extra_arguments=["--log-level=CRITICAL"],  # the kernel's own remarks at its shutdown; cells are not touched
                start_timeout=300,
                iopub_timeout=60,  # nbclient's 4 s end a good run on a busy machine
                kernel_manager_class=_kernel_of_this_python(kernels),
            )
        except PapermillExecutionError as error:
            code, said = _outcome(error.ename, error.evalue, error.exec_count)
        except (DeadKernelError, RuntimeError) as error:
            code, said = 1, f"{notebook.name}: the kernel died ({error}); killed from outside, or out of memory"
        else:
            left = _not_run(done)
            code, said = (1, f"{notebook.name}: {left} cells were not run") if left else (0, "")
    if code and stopped.is_set():
        return RESUME_EXIT, f"{notebook.name}: stopped; run it again to go on"
    return code, said


def _outcome(kind: str, text: str, cell: int | None) -> tuple[int, str]:
    """Exit code and line for the exception ``kind`` with message ``text`` in ``cell``."""
    if kind == "SystemExit":
        number = text.lstrip("-").isdigit()
        code = int(text) & 0xFF if number else 1
        return code, f"In [{cell}] ended the notebook with exit code {code}" if number else text
    if kind == "InputError":
        return InputError.exit_code, text
    if kind == "RunError":
        return RunError.exit_code, text
    first = text.strip().splitlines()[0] if text.strip() else ""
    return 1, f"In [{cell}]: {kind}: {first}"


def _not_run(notebook: Any) -> int:
    """Code cells that no kernel answered for, unless the notebook itself ended early with ``SystemExit(0)``."""
    cells = [cell for cell in notebook.cells if cell.cell_type == "code" and cell.source.strip()]
    if any(out.output_type == "error" and out.ename == "SystemExit" for cell in cells for out in cell.outputs):
        return 0
    return sum(cell.execution_count is None for cell in cells)


def _kernel_of_this_python(kernels: list[Any]) -> type:
    """A kernel manager class that starts ``sys.executable``, whatever is installed for the user, and enters ``kernels``."""
    from jupyter_client.kernelspec import KernelSpecManager
    from jupyter_client.manager import AsyncKernelManager

    class Kernel(AsyncKernelManager):
        def __init__(self, **options: Any):
            # With no folders to look in, "python3" is ipykernel's own specification: the interpreter that runs.
            native = KernelSpecManager(kernel_dirs=[])
            super().__init__(**options, kernel_spec_manager=native, transport_encryption="auto")
            kernels.append(self)

    return Kernel


@contextmanager
def _forwarded(kernels: list[Any]) -> Iterator[threading.Event]:
    """While the block runs, SIGTERM and Ctrl-C reach the newest of ``kernels`` as one SIGTERM, and set the event.

    The kernel lives in a process group of its own, where no scheduler's or terminal's signal arrives. Only the first
    signal is passed on, so that a repeated one does not cut the saving short; a second Ctrl-C kills the kernel.
    """
    stopped = threading.Event()

    def forward(number: int, _frame: Any) -> None:
        pid = getattr(kernels[-1].provisioner, "pid", None) if kernels else None
        if pid is None:  # nothing has started
            raise SystemExit(RESUME_EXIT)
        if not stopped.is_set():
            stopped.set()
            _kill(pid, signal.SIGTERM)
            if number == signal.SIGINT:
                print("stopping once everything is saved; Ctrl-C again to stop at once", file=sys.stderr, flush=True)
        elif number == signal.SIGINT:
            _kill(pid, signal.SIGKILL)

    if threading.current_thread() is not threading.main_thread():
        yield stopped
        return
    before = {number: signal.signal(number, forward) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stopped
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _kill(pid: int, number: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)
