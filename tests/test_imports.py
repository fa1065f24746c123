"""The arrows of the architecture, read from the source with `ast`."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "posezoo"
FILES = sorted(PACKAGE.rglob("*.py"))
MODELS = sorted((PACKAGE / "models").glob("*.py"))
# family -> the family it may import
EDGES = {
    "tcformer": {"tcformer_tokens"},
    "tcformer_mta": {"tcformer", "tcformer_tokens"},
    "pct_tokenizer": {"swin"},
    "pct": {"pct_tokenizer", "swin"},
    "tokenpose": {"hrnet", "token_masks"},
    "hrnet_pose": {"hrnet"},
}
SHARED = {"layers", "heads"}
HEAVY = {"timm", "torchvision", "huggingface_hub", "pycocotools", "scipy", "matplotlib"}


def _imports(path: Path, *, top_level_only: bool = False) -> set[str]:
    """Absolute dotted names of all that a file imports."""
    tree = ast.parse(path.read_text())
    package = ["posezoo", *path.relative_to(PACKAGE).parts[:-1]]
    found = set()
    nodes = tree.body if top_level_only else ast.walk(tree)
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = [*base, *([node.module] if node.module else [])]
            found |= {".".join([*module, alias.name]) for alias in node.names}
            found.add(".".join(module))
    return found


@pytest.mark.parametrize("path", MODELS, ids=lambda p: p.name)
def test_model_file_knows_nothing_of_files_and_downloads(path):
    plumbing = {name.split(".")[1] for name in _imports(path) if name.startswith("posezoo.")} - {
        "models"
    }
    allowed = {"_config", "_registry", "_conversion", "errors"}
    assert plumbing <= allowed, plumbing - allowed


@pytest.mark.parametrize("path", MODELS, ids=lambda p: p.name)
def test_family_imports_no_other_family(path):
    if path.stem == "__init__":
        pytest.skip("imports all of them")
    names = {n.split(".")[2] for n in _imports(path) if n.startswith("posezoo.models.")}
    assert names - SHARED <= EDGES.get(path.stem, set())


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_package_imports_no_benchmark_and_no_test(path):
    roots = {name.split(".")[0] for name in _imports(path)}
    assert not roots & {"benchmarks", "tests", "standins", "goldens"}


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_evaluation_and_training_are_optional(path):
    part = path.relative_to(PACKAGE).parts[0]
    if part in ("evaluation", "training"):
        pytest.skip("itself")
    top = _imports(path, top_level_only=True)
    assert not any(n.startswith(("posezoo.evaluation", "posezoo.training")) for n in top)
    anywhere = {name.split(".")[0] for name in _imports(path)}
    assert not anywhere & {"pycocotools", "scipy"}


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_heavy_packages_are_imported_where_they_are_used(path):
    if path.relative_to(PACKAGE).parts[0] in ("evaluation", "training"):
        pytest.skip("optional part")
    assert not {name.split(".")[0] for name in _imports(path, top_level_only=True)} & HEAVY
