"""The rules of who imports whom, read from the source."""

from __future__ import annotations

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "posezoo"
HEAVY = {"timm", "torchvision", "huggingface_hub", "pycocotools", "scipy", "matplotlib"}
OPTIONAL = ("posezoo.evaluation", "posezoo.training", "posezoo.synthetic")


def _name(path: Path) -> str:
    parts = ["posezoo", *path.relative_to(PACKAGE).with_suffix("").parts]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def _is_for_types(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def _statements(tree: ast.AST, *, inside_functions: bool) -> list[ast.AST]:
    """Every import that runs, and not those that only a type checker reads."""
    found: list[ast.AST] = []
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            found.append(node)
        elif _is_for_types(node):
            continue
        elif inside_functions or not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            found += _statements(node, inside_functions=inside_functions)
    return found


@cache
def _imports(module: str, *, inside_functions: bool = True) -> frozenset[str]:
    """Dotted names of all that a module imports: modules of the package, or other packages."""
    path = MODULES[module]
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    found = set()
    for node in _statements(ast.parse(path.read_text()), inside_functions=inside_functions):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
            continue
        base = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
        source = ".".join([*base, *([node.module] if node.module else [])])
        for alias in node.names:
            full = f"{source}.{alias.name}"
            found.add(full if full in MODULES else source)
    return frozenset(found)


def test_no_import_cycle():
    """Neither when modules load nor later inside functions; packages are lazy by name only."""
    done: set[str] = set()

    def walk(module: str, trail: tuple[str, ...]) -> None:
        assert module not in trail, " -> ".join([*trail[trail.index(module) :], module])
        if module in done:
            return
        for other in sorted(_imports(module) & set(MODULES)):
            if other not in (module, "posezoo"):
                walk(other, (*trail, module))
        done.add(module)

    for module in MODULES:
        if module != "posezoo":
            walk(module, ())


def test_families_know_nothing_of_files_and_downloads_and_of_each_other():
    shared = {"layers", "heads", "hrnet"}
    for module in MODULES:
        parts = module.split(".")
        if parts[:2] != ["posezoo", "models"] or len(parts) < 3:
            continue
        for name in _imports(module):
            other = name.split(".")
            if other[:2] == ["posezoo", "models"]:
                assert len(other) < 3 or other[2] in {parts[2], *shared}, (module, name)
            elif other[0] == "posezoo":
                leaves = ("zoo", "errors", "graphs", "onednn", "packing", "device")
                assert other[1] in leaves or name == "posezoo.weights.keys", (module, name)


def test_nothing_imports_benchmarks_or_tests_and_optional_parts_are_optional():
    for module in MODULES:
        assert not {n.split(".")[0] for n in _imports(module)} & {"benchmarks", "tests", "goldens"}
        if not module.startswith((*OPTIONAL, "posezoo.cli")):
            top = _imports(module, inside_functions=False)
            assert not any(name.startswith(OPTIONAL) for name in top), module


def test_heavy_packages_are_imported_where_they_are_used():
    users = ("posezoo.evaluation", "posezoo.training", "posezoo.synthetic", "posezoo.weights.hub")
    for module in MODULES:
        if not module.startswith(users):
            top = {name.split(".")[0] for name in _imports(module, inside_functions=False)}
            assert not top & HEAVY, (module, top & HEAVY)


def test_listing_models_loads_neither_torch_nor_numpy():
    code = (
        "import sys, posezoo, posezoo.cli\n"
        "from click.testing import CliRunner\n"
        "for command in (['--help'], ['list'], ['info', 'uniformer_s_256x192']):\n"
        "    result = CliRunner().invoke(posezoo.cli.main, command)\n"
        "    assert result.exit_code == 0, result.output\n"
        f"print([m for m in {HEAVY | {'torch', 'numpy', 'PIL'}} if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
