"""Notebooks with checked parameters, run once for each notebook, parameters, code and data."""

from __future__ import annotations

import ast
import json
import logging
import os
import shutil
import signal
import sys
import sysconfig
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from pointseg.data.files import inside, is_whole, read_bytes, shown
from pointseg.lab.carry import is_carried
from pointseg.lab.chain import code_of
from pointseg.lab.fingerprint import code_hash, imported, library_hash, sha8
from pointseg.lab.plan import folder_of, recipe_for
from pointseg.lab.recipe import Recipe
from pointseg.lab.run_data import data_hash
from pointseg.lab.run_record import (
    RUNS,
    SMOKE,
    Interrupted,
    Run,
    StopFlag,
    flat,
    run_folder,
    write_text,
)
from pointseg.lab.settings import read_value
from pointseg.structures import InputError

MOST_BYTES = 2**23  # of a notebook
KERNEL = "python3"
OUT = "out"  # the parameter that, where a notebook has it, receives the run's folder
CHECKED = {"int": int, "float": (int, float), "str": str, "bool": bool, "dict": dict, "list": list}
PLAIN = {"int": "an integer", "float": "a number", "str": "a text", "bool": "true or false",
         "dict": "a table", "list": "a list"}  # fmt: skip
EXPERIMENT = {"method", "data", "seed"}  # parameters of a notebook that describes an experiment


@dataclass(frozen=True)
class Parameter:
    """One line `name: type = default` of a parameters cell."""

    name: str
    type: str
    optional: bool
    default: Any

    def parse(self, given: Any) -> Any:
        """The value for a text such as the command line gives, or for a value of its type."""
        value = self._read(given) if isinstance(given, str) and self.type != "str" else given
        if not self.fits(value):
            raise self._refusal(given)
        return float(value) if self.type == "float" and value is not None else value

    def fits(self, value: Any) -> bool:
        if value is None:
            return self.optional
        if isinstance(value, int) and not isinstance(value, bool) and not is_whole(value):
            return False
        is_flag = isinstance(value, bool)
        return isinstance(value, CHECKED[self.type]) and is_flag == (self.type == "bool")

    def _read(self, given: str) -> Any:
        try:
            return read_value(given)
        except (ValueError, RecursionError):
            raise self._refusal(given) from None

    def _refusal(self, given: Any) -> InputError:
        return InputError(f"{self.name}: expected {PLAIN[self.type]}, got {shown(given)}")


@dataclass(frozen=True)
class Source:
    """A py:percent notebook."""

    path: Path
    notebook: Any  # nbformat.NotebookNode

    @property
    def code(self) -> str:
        """The code cells, without those lines only a notebook understands."""
        cells = [cell.source for cell in self.notebook.cells if cell.cell_type == "code"]
        lines = "\n".join(cells).splitlines()
        return "\n".join(line for line in lines if not line.lstrip().startswith(("%", "!")))

    @property
    def parameters(self) -> dict[str, Parameter]:
        """What the cell tagged `parameters` declares."""
        tagged = [c for c in self.notebook.cells if "parameters" in c.metadata.get("tags", [])]
        nodes = parsed(tagged[0].source, self.path).body if tagged else []
        declared = [_declared(node, self.path) for node in nodes]
        return {parameter.name: parameter for parameter in declared}


@dataclass(frozen=True)
class Key:
    """What a result was made from; all of it must still match for its page to be current."""

    notebook: str
    parameters: dict[str, Any]
    code: dict[str, str]  # hash of the library's code by method; else by the notebook's name
    data: str | None

    @property
    def sha8(self) -> str:
        return sha8(asdict(self))


def read_notebook(path: Path) -> Source:
    """The notebook, all of whose code is Python."""
    import jupytext

    raw = read_bytes(Path(path), MOST_BYTES)
    try:
        source = Source(Path(path), jupytext.reads(raw.decode("utf-8-sig"), fmt="py:percent"))
    except Exception as error:  # its header is YAML, its marks are jupytext's
        cause = (str(error).splitlines() or [""])[0]
        raise InputError(f"{path}: is not a notebook ({shown(cause)})") from None
    parsed(source.code, source.path)
    return source


def parsed(code: str, path: Path) -> ast.Module:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd escapes; the kernel will say so
            return ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        cause = getattr(error, "msg", None) or "nested too deeply, or bytes that are no text"
        raise InputError(f"{path}: its code is not Python ({cause})") from None


def checked(source: Source, given: Mapping[str, Any]) -> dict[str, Any]:
    """All parameters with their values; an unknown name or a wrong type is refused before
    anything runs."""
    declared = {name: p for name, p in source.parameters.items() if name != OUT}
    for name in given:
        if name not in declared:
            known = ", ".join(declared) or "none"
            raise InputError(f"{source.path}: there is no parameter '{name}'; there are {known}")
    return {
        name: p.parse(given[name]) if name in given else p.default for name, p in declared.items()
    }


def recipe_of(values: Mapping[str, Any]) -> Recipe | None:
    """The recipe of a notebook that describes an experiment, None for others."""
    if not set(values) >= EXPERIMENT:
        return None
    points = {"kind": values.get("points"), "n": values.get("n"), "seed": values.get("points_seed")}
    named = ("data", "layout", "scale", "seed", "stages", "training", "config", "settings")
    return recipe_for(
        values["method"],
        points={name: value for name, value in points.items() if value is not None},
        **{name: values.get(name) for name in named},
    )


def key_of(source: Source, values: Mapping[str, Any], data: str | None = None) -> Key:
    """`values` are the checked parameters; the data's hash is computed unless it is given."""
    recipe = recipe_of(values)
    if recipe is None:
        code = {source.path.stem: library_hash(imported(source.code))}
        return Key(code_hash(source.code), dict(values), code, None)
    code = {stage.method: code_of(stage.method) for stage in recipe.stages}
    return Key(code_hash(source.code), dict(values), code, data or data_hash(recipe))


def folder_for(source: Source, key: Key) -> Path:
    """Where a result belongs below runs/."""
    recipe = recipe_of(key.parameters)
    if recipe:
        return folder_of(recipe)
    values = key.parameters
    paper = SMOKE if values.get("scale") == SMOKE else "notebooks"
    return run_folder(paper, f"{source.path.stem}-{key.sha8}", f"s{values.get('seed', 0)}")


def prepared(
    path: Path, parameters: Mapping[str, Any], runs: Path = RUNS
) -> tuple[Source, Key, Run]:
    """The notebook, its key and the run that has or would have its result; nothing is executed."""
    source = read_notebook(path)
    key = key_of(source, checked(source, parameters))
    return source, key, Run(Path(runs) / folder_for(source, key))


def run_notebook(
    path: Path, parameters: Mapping[str, Any], force: bool = False, runs: Path = RUNS
) -> Path:
    """Executes a notebook into a folder of runs/ and returns that folder.

    What has run already does not run again, unless what it was made from has changed.
    """
    source, key, run = prepared(path, parameters, runs)
    with run.alone(force):
        if run.status == "ok" and not force:
            recorded = key_in(run.result)
            outdated = differences(recorded, key) if recorded else ["what it was made from"]
            if not outdated:
                return run.folder
            print(f"{run.folder}: {', '.join(outdated)} changed, it is made again", file=sys.stderr)
        if run.status == "ok":
            (run.folder / "result.json").unlink()  # first: what is half gone is no result
            shutil.rmtree(run.folder, ignore_errors=True)
        with run.recording(notebook=Path(path).name, key=asdict(key), sha8=key.sha8):
            execute(source, key.parameters, run)
    return run.folder


def key_in(result: Mapping[str, Any]) -> Key | None:
    """What a run was made from, where its result says so."""
    if "key" not in result:
        return None
    return Key(**{field.name: result["key"][field.name] for field in fields(Key)})


def execute(source: Source, values: Mapping[str, Any], run: Run) -> None:
    """Runs the cells in a kernel of their own. A signal reaches the kernel, which may end its step
    and save.

    What processes started by a cell say goes straight to the terminal; the kernel would catch it
    and say it twice.
    """
    import papermill
    from nbclient.exceptions import DeadKernelError

    started: list[Any] = []
    given = {**values, OUT: str(run.folder)} if OUT in source.parameters else dict(values)
    run.scratch.mkdir(parents=True, exist_ok=True)
    executed = run.scratch / "notebook.ipynb"
    logging.getLogger("papermill").setLevel(logging.ERROR)
    with Forwarded(started) as stop:
        try:
            papermill.execute_notebook(
                source.notebook, str(executed), parameters=given, kernel_name=KERNEL,
                language="python", progress_bar=False, stderr_file=sys.stderr,
                kernel_manager_class=known_kernels(started, stop),
                extra_arguments=["--IPKernelApp.log_level=50",
                                 "--IPKernelApp.capture_fd_output=False"],
            )  # fmt: skip
        except papermill.PapermillExecutionError as problem:
            if stop.raised:
                raise Interrupted("stopped by a signal, resumable") from None
            raise refusal(problem, source.path, run.folder) from None
        except DeadKernelError:
            raise InputError(f"{source.path}: its kernel was killed, or had no memory") from None
        finally:
            publish(executed, run.folder / "notebook.ipynb")


def refusal(problem: Any, path: Path, folder: Path) -> InputError:
    """What a failing cell says, in one line; where it is no bad input, with the place of the rest
    of it."""
    cause = (str(problem.evalue).splitlines() or [""])[0][:300]
    if problem.ename == InputError.__name__:
        return InputError(cause)
    where = f"{path}: cell {problem.exec_count}"
    rest = f"its traceback stands in {folder / 'notebook.ipynb'}"
    return InputError(f"{where}: {problem.ename}: {cause}; {rest}")


def known_kernels(started: list[Any], stop: StopFlag) -> type:
    """A kernel manager that notes whom it has started, so that a signal can be passed on.

    A kernel that is only starting would die of a signal or swallow it, and one that has ended a
    cell does not hear it: before each cell the flag is looked at instead.
    """
    from jupyter_client import AsyncKernelManager

    class Known(AsyncKernelManager):
        def client(self, **options: Any) -> Any:
            client = super().client(**options)
            execute = client.execute

            def unless_stopped(*words: Any, **options: Any) -> Any:
                if stop.raised:
                    os.kill(self.provisioner.pid, signal.SIGKILL)
                    raise Interrupted("stopped by a signal, resumable")
                if self not in started:
                    started.append(self)
                return execute(*words, **options)

            client.execute = unless_stopped
            return client

    return Known


class Forwarded(StopFlag):
    """Inside `with`, SIGTERM and SIGINT become an interrupt of the kernels at work."""

    def __init__(self, managers: list[Any]):
        super().__init__()
        self.managers = managers

    def _note(self, number: int, frame: Any) -> None:
        super()._note(number, frame)
        for manager in self.managers:
            os.kill(manager.provisioner.pid, signal.SIGINT)


def publish(executed: Path, target: Path) -> None:
    """Moves an executed notebook into its run, without the places of this machine and without
    pictures: what a page shows is a file of the run, or is drawn again from its numbers."""
    if not executed.exists():
        return
    text = json.dumps(_without_images(json.loads(executed.read_text())), indent=1) + "\n"
    paths = sysconfig.get_paths()
    for place in (paths["purelib"], paths["stdlib"], str(Path.cwd()), str(Path.home())):
        text = text.replace(json.dumps(f"{place}/")[1:-1], "")
    write_text(target, text)
    executed.unlink()


def _without_images(notebook: dict[str, Any]) -> dict[str, Any]:
    for output in (each for cell in notebook["cells"] for each in cell.get("outputs", [])):
        for kind in [kind for kind in output.get("data", {}) if kind.startswith("image/")]:
            del output["data"][kind]
    return notebook


def stale(folder: Path, notebooks: Path = Path("book")) -> list[str]:
    """What of a run no longer matches: notebook, parameters, code or data; [] where it is current,
    also where its code was proven to give the same numbers (`pointseg carry`)."""
    return differences(*_keys(folder, notebooks)) if _has_key(folder, notebooks) else ["no key"]


def state(folder: Path, notebooks: Path = Path("book")) -> str:
    """ "current", "stale", or "carried": current only because other code was proven to give the
    same numbers."""
    if stale(folder, notebooks):
        return "stale"
    recorded, current = _keys(folder, notebooks)
    return "current" if recorded.code == current.code else "carried"


def differences(recorded: Key, current: Key) -> list[str]:
    """The parts of two keys that differ, code left out where it is carried."""
    names = [
        name
        for name in ("notebook", "parameters", "data")
        if getattr(recorded, name) != getattr(current, name)
    ]
    methods = set(recorded.code) | set(current.code)
    same = all(is_carried(m, recorded.code.get(m), current.code.get(m)) for m in methods)
    return names if same else [*names, "code"]


def _has_key(folder: Path, notebooks: Path) -> bool:
    result = Run(Path(folder)).result
    return "key" in result and inside(Path(notebooks), result.get("notebook", "absent")).exists()


def _keys(folder: Path, notebooks: Path) -> tuple[Key, Key]:
    """The recorded key of a run and the one that it would have now."""
    result = Run(Path(folder)).result
    recorded = key_in(result)
    source = read_notebook(Path(notebooks) / result["notebook"])
    declared = source.parameters
    values = {name: p.default for name, p in declared.items() if name != OUT}
    values |= {name: v for name, v in recorded.parameters.items() if name in values}
    try:
        return recorded, key_of(source, values)
    except InputError:  # the data are not on this machine: nobody can tell
        return recorded, key_of(source, values, recorded.data)


def compare_results(one: Path, other: Path, rtol: float = 0.05, atol: float = 0.0) -> list[str]:
    """Metrics of two runs that differ by more than the tolerances, one line each."""
    a, b = (measured(Path(folder)) for folder in (one, other))
    faults = [f"{name}: only in one of the two" for name in sorted(set(a) ^ set(b))]
    for name in sorted(set(a) & set(b)):
        if abs(a[name] - b[name]) > atol + rtol * abs(b[name]):
            faults.append(f"{name}: {a[name]:g} and {b[name]:g}")
    return faults


def measured(folder: Path) -> dict[str, float]:
    """The metrics of a run; its seconds and its stages are a matter of the machine."""
    metrics = flat(Run(folder).result.get("metrics", {}))
    return {name: value for name, value in metrics.items() if name != "seconds"}


def _declared(node: ast.stmt, path: Path) -> Parameter:
    target = node.target if isinstance(node, ast.AnnAssign) else getattr(node, "targets", [None])[0]
    assigned = isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None
    if not assigned or not isinstance(target, ast.Name):
        raise InputError(
            f"{path}: parameters cell, line {node.lineno}: expected 'name: type = value'"
        )
    try:
        default = ast.literal_eval(node.value)
    except ValueError:
        raise InputError(f"{path}: parameter {target.id}: its default is not a literal") from None
    except (TypeError, RecursionError, MemoryError):
        raise InputError(f"{path}: parameter {target.id}: its default is not readable") from None
    typed = isinstance(node, ast.AnnAssign)
    named = ast.unparse(node.annotation) if typed else type(default).__name__
    kind = named.removesuffix(" | None")
    if kind not in CHECKED:
        raise InputError(
            f"{path}: parameter {target.id} has type {kind}; there are {', '.join(CHECKED)}"
        )
    parameter = Parameter(target.id, kind, named != kind, default)
    if not parameter.fits(default):
        raise InputError(f"{path}: parameter {target.id} is {PLAIN[kind]}, its default is not")
    return parameter
