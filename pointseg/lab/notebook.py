"""Notebooks with checked parameters, run once for each content of notebook, parameters, library and data."""

from __future__ import annotations

import ast
import base64
import io
import itertools
import json
import logging
import os
import shutil
import signal
import sys
import sysconfig
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from PIL import Image

from pointseg.lab.fingerprint import code_hash, imported, library_hash, sha8
from pointseg.lab.recipe import METHODS, method_class
from pointseg.lab.run_record import RUNS, Interrupted, Run, StopFlag, flat, write_text
from pointseg.structures import InputError

KERNEL = "python3"
OUT = "out"  # the parameter that, where a notebook has it, receives the run's folder
CHECKED = {"int": int, "float": (int, float), "str": str, "bool": bool, "dict": dict, "list": list}


@dataclass(frozen=True)
class Parameter:
    """One line `name: type = default` of a parameters cell."""

    name: str
    type: str
    default: Any

    def parse(self, given: Any) -> Any:
        """The value for a text such as the command line gives, or for a value that has its type already."""
        if isinstance(given, str) and self.type != "str":
            try:
                given = yaml.safe_load(given)
            except yaml.YAMLError:
                raise self._refusal(given) from None
            if self.type == "float" and isinstance(given, str):  # YAML reads 1e-3 as a text
                given = _as_float(given)
        fits = isinstance(given, CHECKED[self.type]) and (
            self.type == "bool" or not isinstance(given, bool)
        )
        if not fits:
            raise self._refusal(given)
        return float(given) if self.type == "float" else given

    def _refusal(self, given: Any) -> InputError:
        return InputError(f"parameter {self.name}: {given!r} is no {self.type}")


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
        found = {}
        for node in ast.parse(tagged[0].source).body if tagged else []:
            parameter = _declared(node, self.path)
            found[parameter.name] = parameter
        return found


@dataclass(frozen=True)
class Key:
    """What a run's name is made from; four hashes that must still match for its page to be current."""

    notebook: str
    parameters: dict[str, Any]
    library: str
    data: str

    @property
    def sha8(self) -> str:
        return sha8(self.notebook, self.parameters, self.library, self.data)


def read_notebook(path: Path) -> Source:
    import jupytext

    try:
        return Source(Path(path), jupytext.reads(Path(path).read_text(), fmt="py:percent"))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not readable ({getattr(error, 'strerror', error)})") from None


def checked(source: Source, given: Mapping[str, Any]) -> dict[str, Any]:
    """All parameters with their values; an unknown name or a wrong type is refused before anything runs."""
    declared = {name: p for name, p in source.parameters.items() if name != OUT}
    for name in given:
        if name not in declared:
            raise InputError(
                f"{source.path}: no parameter '{name}'; there are {', '.join(declared) or 'none'}"
            )
    return {
        name: p.parse(given[name]) if name in given else p.default for name, p in declared.items()
    }


def key_of(source: Source, values: Mapping[str, Any], data: str | None = None) -> Key:
    """`values` are the checked parameters; the data's hash is computed unless it is given."""
    roots = set(imported(source.code)) | method_modules(values)
    return Key(
        code_hash(source.code),
        dict(values),
        library_hash(roots),
        data_of(values) if data is None else data,
    )


def method_modules(values: Mapping[str, Any]) -> set[str]:
    """The modules of the methods that parameters name."""
    names = [values.get(name) for name in ("method", "student")]
    return {method_class(name).__module__ for name in names if name in METHODS}


def data_of(values: Mapping[str, Any]) -> str:
    """The data hash of a notebook that describes an experiment, "" of others."""
    if "method" not in values or "data" not in values:
        return ""
    from pointseg.lab.recipe import from_parameters
    from pointseg.lab.run_data import data_hash

    return data_hash(from_parameters(values))


def run_id(source: Source, key: Key) -> str:
    """<method>-<data>-<scale>-s<seed>-<sha8>; a notebook without a method is called by its own name."""
    values = key.parameters
    words = [
        values.get("method") or source.path.stem,
        Path(values.get("data", "")).name,
        values.get("scale", ""),
    ]
    words.append(f"s{values['seed']}" if "seed" in values else "")
    return "-".join([*(word for word in words if word), key.sha8])


def prepared(
    path: Path, parameters: Mapping[str, Any], runs: Path = RUNS
) -> tuple[Source, Key, Run]:
    """The notebook, its key and the run that has or would have its result; nothing is executed."""
    source = read_notebook(path)
    key = key_of(source, checked(source, parameters))
    return source, key, Run(Path(runs) / run_id(source, key))


def run_notebook(
    path: Path, parameters: Mapping[str, Any], force: bool = False, runs: Path = RUNS
) -> Path:
    """Executes a notebook into runs/<id>/ and returns that folder; what has run already does not run again."""
    source, key, run = prepared(path, parameters, runs)
    if run.status == "ok" and not force:
        return run.folder
    if run.status == "running":
        raise InputError(f"{run.folder}: is running in process {run.result['pid']}")
    if force:
        shutil.rmtree(run.folder, ignore_errors=True)
        shutil.rmtree(run.scratch, ignore_errors=True)
    if run.status == "absent":
        set_aside(run)
    facts = {"notebook": Path(path).name, "key": vars(key)}
    with run.recording(**facts):
        execute(source, key.parameters, run)
    return run.folder


def set_aside(run: Run) -> None:
    """Checkpoints without the record of their steps, which somebody has removed: nothing is resumed, nothing lost."""
    if run.scratch.exists():
        place = next(
            p
            for n in itertools.count(1)
            if not (p := run.scratch.with_name(f"{run.id}.{n}")).exists()
        )
        run.scratch.rename(place)
        print(
            f"{run.folder} has no record: it starts anew; what it left behind is kept in {place}",
            file=sys.stderr,
        )


def execute(source: Source, values: Mapping[str, Any], run: Run) -> None:
    """Runs the cells in a kernel of their own. A signal reaches the kernel, which may end its step and save.

    What processes started by a cell say goes straight to the terminal; the kernel would catch it and say it twice.
    """
    import papermill
    from jupyter_client import AsyncKernelManager

    started: list[AsyncKernelManager] = []

    class Known(AsyncKernelManager):
        """Says which kernel was started, so that a signal can be passed on to it."""

        async def start_kernel(self, *words: Any, **options: Any) -> None:
            await super().start_kernel(*words, **options)
            started.append(self)

    given = {**values, OUT: str(run.folder)} if OUT in source.parameters else dict(values)
    run.scratch.mkdir(parents=True, exist_ok=True)
    executed = run.scratch / "notebook.ipynb"
    logging.getLogger("papermill").setLevel(logging.ERROR)
    with Forwarded(started) as stop:
        try:
            papermill.execute_notebook(
                source.notebook, str(executed), parameters=given, kernel_name=KERNEL, language="python",
                progress_bar=False, stderr_file=sys.stderr, kernel_manager_class=Known,
                extra_arguments=["--IPKernelApp.log_level=40", "--IPKernelApp.capture_fd_output=False"],
            )  # fmt: skip
        except papermill.PapermillExecutionError as problem:
            if stop.asked:
                raise Interrupted("stopped by a signal, resumable") from None
            raise RuntimeError(
                f"cell {problem.exec_count}: {problem.ename}: {problem.evalue}"
            ) from None
        finally:
            publish(executed, run.folder / "notebook.ipynb")


class Forwarded(StopFlag):
    """Inside `with`, SIGTERM and SIGINT become an interrupt of the kernel."""

    def __init__(self, managers: list[Any]):
        super().__init__()
        self.managers = managers

    def _note(self, number: int, frame: Any) -> None:
        super()._note(number, frame)
        for manager in self.managers:
            os.kill(manager.provisioner.pid, signal.SIGINT)


def publish(executed: Path, target: Path) -> None:
    """Moves an executed notebook into its run, without the places of this machine."""
    if not executed.exists():
        return
    text = executed.read_text()
    for place in {
        sysconfig.get_paths()["purelib"],
        sysconfig.get_paths()["stdlib"],
        str(Path.cwd()),
        str(Path.home()),
    }:
        text = text.replace(json.dumps(f"{place}/")[1:-1], "")
    write_text(target, with_light_pictures(text))
    executed.unlink()


def with_light_pictures(text: str) -> str:
    """A notebook whose pictures have few colours: a run keeps its notebook, and git keeps every run."""
    notebook = json.loads(text)
    for cell in notebook["cells"]:
        for output in cell.get("outputs", []):
            if "image/png" in output.get("data", {}):
                output["data"]["image/png"] = few_colours(output["data"]["image/png"])
    return json.dumps(notebook, indent=1) + "\n"


def few_colours(png: str) -> str:
    """A picture in base64, of 64 colours if that makes it smaller."""
    buffer = io.BytesIO()
    with Image.open(io.BytesIO(base64.b64decode(png))) as picture:
        picture.convert("RGB").quantize(64).save(buffer, format="png", optimize=True)
    light = base64.b64encode(buffer.getvalue()).decode()
    return min(light, png, key=len)


def stale(folder: Path, notebooks: Path = Path("book")) -> list[str]:
    """What of a run no longer matches: notebook, parameters, library or data; [] where the run is current."""
    run = Run(Path(folder))
    result = run.result
    if "key" not in result:
        return ["no key"]
    recorded = Key(**result["key"])
    path = Path(notebooks) / result["notebook"]
    if not path.exists():
        return ["notebook"]
    source = read_notebook(path)
    declared = set(source.parameters) - {OUT}
    if declared != set(recorded.parameters):
        return ["parameters"]
    current = key_of(source, recorded.parameters, known_data(recorded))
    return [
        name
        for name in ("notebook", "library", "data")
        if getattr(current, name) != getattr(recorded, name)
    ]


def known_data(recorded: Key) -> str:
    """The data hash now; the recorded one where the data are not on this machine, for then nobody can tell."""
    try:
        return data_of(recorded.parameters)
    except InputError:
        return recorded.data


def compare_results(one: Path, other: Path, rtol: float = 0.05, atol: float = 0.0) -> list[str]:
    """Metrics of two runs that differ by more than the tolerances, one line each; speeds are no results."""
    a, b = (measured(Path(folder)) for folder in (one, other))
    faults = [f"{name}: only in one of the two" for name in sorted(set(a) ^ set(b))]
    for name in sorted(set(a) & set(b)):
        if abs(a[name] - b[name]) > atol + rtol * abs(b[name]):
            faults.append(f"{name}: {a[name]:g} and {b[name]:g}")
    return faults


def measured(folder: Path) -> dict[str, float]:
    """The metrics of a run that do not depend on the machine."""
    speeds = ("images_per_s", "data_wait_share", "mem_gb")
    metrics = flat(Run(folder).result.get("metrics", {}))
    return {name: value for name, value in metrics.items() if name.split("/")[-1] not in speeds}


def _declared(node: ast.stmt, path: Path) -> Parameter:
    target = node.target if isinstance(node, ast.AnnAssign) else getattr(node, "targets", [None])[0]
    if (
        not isinstance(node, ast.Assign | ast.AnnAssign)
        or not isinstance(target, ast.Name)
        or node.value is None
    ):
        raise InputError(
            f"{path}: line {node.lineno} of its parameters cell is no 'name: type = value'"
        )
    try:
        default = ast.literal_eval(node.value)
    except ValueError:
        raise InputError(f"{path}: the default of parameter {target.id} is no literal") from None
    named = (
        ast.unparse(node.annotation) if isinstance(node, ast.AnnAssign) else type(default).__name__
    )
    if named not in CHECKED:
        raise InputError(
            f"{path}: parameter {target.id} has type {named}; there are {', '.join(CHECKED)}"
        )
    return Parameter(target.id, named, default)


def _as_float(text: str) -> Any:
    try:
        return float(text)
    except ValueError:
        return text
