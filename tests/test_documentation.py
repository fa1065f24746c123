"""The code in README and docs/ runs, in one process and a folder with rendered pictures.

Weights are never fetched: where a page names a model that would be downloaded, a model of the
package or random weights stand in, and a detector becomes the whole image. A block whose first
line is `# not run in the tests: REASON` is not run; its Python must compile, and its commands and
options must exist.
"""

from __future__ import annotations

import functools
import json
import re
import runpy
import shlex
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import click
import pytest
from click.testing import CliRunner
from PIL import Image

import posezoo
from posezoo.cli import main
from posezoo.media.film import FilmWriter
from posezoo.synthetic import render_film, render_scene, write_coco
from posezoo.synthetic.__main__ import main as synthetic

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```(python|bash|json)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
NOT_RUN = re.compile(r"# not run in the tests: \w+")
SMALL = "hrnet_xs_192x144.rendered"  # stands in for pose models that would be fetched
FETCHED = [n for n in posezoo.list_models() if not posezoo.get_pretrained_cfg(n).source.packaged]
SMALL_RUN = ["--set", "epochs=1", "--set", "batch_size=4", "--set", "warmup_steps=1"]
OTHERS = ("pip", "torchrun", "python", "ruff", "mkdocs")  # commands that are not posezoo's


class Block(NamedTuple):
    """A block of code: its language, text, and whether the tests run it."""

    language: str
    code: str

    @property
    def runs(self) -> bool:
        return not NOT_RUN.match(self.code)


def blocks_of(page: Path) -> list[Block]:
    return [Block(*found) for found in BLOCK.findall(page.read_text())]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Everything that the pages name: two photos, boxes, a film, data sets, a skeleton."""
    folder = tmp_path_factory.mktemp("pages")
    (folder / "photos" / "more").mkdir(parents=True)
    for seed, names in enumerate(
        (["photo.jpg", "photos/a.jpg"], ["photo2.jpg", "photos/more/b.jpg"])
    ):
        image = Image.fromarray(render_scene(seed, (420, 300), people=1).image)
        for name in names:
            image.save(folder / name)
    boxes = {"photo.jpg": [[48, 30, 210, 400]]}
    (folder / "boxes.json").write_text(json.dumps(boxes))
    write_film(folder / "film.mp4")
    write_coco(folder / "coco", 2, 1)
    write_coco(folder / "coco", 4, 2, split="train2017")
    write_detections(folder / "coco")
    write_skeleton(folder)
    return folder


def write_film(path: Path) -> None:
    pytest.importorskip("av")
    frames = [frame.image for frame in render_film(1, frames=10, size=(96, 128), people=1)]
    with FilmWriter(path, Fraction(25)) as film:
        for number, frame in enumerate(frames):
            film.write(frame, number / 25)


def write_detections(coco: Path) -> None:
    """The common detection file: the annotated boxes, with a score."""
    annotations = json.loads((coco / "annotations/person_keypoints_val2017.json").read_text())
    rows = [
        {"image_id": a["image_id"], "category_id": 1, "bbox": a["bbox"], "score": 0.9}
        for a in annotations["annotations"]
    ]
    (coco / "COCO_val2017_detections_AP_H_56_person.json").write_text(json.dumps(rows))


def write_skeleton(folder: Path) -> None:
    """The keypoints of `howto/own-keypoints.md`."""
    page = ROOT / "docs/howto/own-keypoints.md"
    text = next(b.code for b in blocks_of(page) if b.language == "json")
    (folder / "stick.json").write_text(text)


def offline(code: str) -> str:
    """Python that fetches nothing."""
    code = code.replace("PosePredictor()", f'PosePredictor("{SMALL}", detector=None)')
    code = re.sub(r'PosePredictor\("(?:vitpose|uniformer)\w+"\)', f'PosePredictor("{SMALL}")', code)
    names = "|".join(FETCHED)
    return re.sub(rf'(create_model\("(?:{names})"), pretrained=True', r"\1", code)


def commands(code: str) -> Iterator[list[str]]:
    """The words of each command; continued lines are joined, comments left out."""
    for line in code.replace("\\\n", " ").splitlines():
        for part in line.split(" && "):
            if words := shlex.split(part, comments=True):
                yield words


def offline_arguments(words: Sequence[str]) -> list[str]:
    """Arguments of `posezoo` that fetch nothing and end soon."""
    command, *rest = words
    if command in ("predict", "eval", "train"):
        small = "hrnet_xs_128x96" if command == "train" else SMALL
        rest = [small if word in FETCHED else word for word in rest]
    if command == "predict" and "--model" not in rest:
        rest += ["--model", SMALL]
    if command == "predict" and not {"--boxes", "--whole-image"} & set(rest):
        rest.append("--whole-image")
    if command == "train":
        rest += SMALL_RUN
    if command == "demo":
        rest += ["--images", "2"]
    return [command, *rest]


@functools.cache
def run(*words: str) -> None:
    """Run a command; what several pages name is run once."""
    if words[0] == "posezoo":
        done = CliRunner().invoke(main, offline_arguments(words[1:]))
    elif words[:3] == ("python", "-m", "posezoo.synthetic"):
        done = CliRunner().invoke(synthetic, words[3:])
    else:
        assert words[:2] == ("pip", "install") or words[:3] == ("python", "-m", "pytest"), words
        return  # CI runs these
    assert done.exit_code == 0, f"{shlex.join(words)}\n{done.output}\n{done.exception!r}"


def check_command(words: list[str]) -> None:
    """A command that is not run must exist, with its options."""
    words = [w for w in words if not re.fullmatch(r"[A-Z_]+=\S+", w)]
    if "posezoo" in words[:6]:  # also after torchrun … -m
        command = main.commands[words[words.index("posezoo") + 1]]
        known = {name for param in command.params for name in (*param.opts, *param.secondary_opts)}
        given = {w for w in words[words.index("posezoo") :] if w.startswith("--")}
        assert given <= known, f"{shlex.join(words)}: no option {given - known}"
    elif words[0] == "python" and words[1].endswith(".py"):
        assert (ROOT / words[1]).is_file(), words[1]
    else:
        assert words[0] in OTHERS, words


@pytest.mark.parametrize(
    "page", [p for p in PAGES if blocks_of(p)], ids=lambda p: str(p.relative_to(ROOT))
)
def test_code_runs(page: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    namespace: dict[str, Any] = {}
    for block in blocks_of(page):
        if block.language == "json":
            json.loads(block.code)
        elif block.language == "python":
            code = compile(offline(block.code), f"{page.name}: {block.code[:40]}", "exec")
            if block.runs:
                exec(code, namespace)
        else:
            for words in commands(block.code):
                run(*words) if block.runs else check_command(words)


def test_pictures_are_small_and_drawn_by_the_gallery() -> None:
    script = (ROOT / "benchmarks/gallery.py").read_text()
    pictures = sorted((ROOT / "docs/assets").glob("*.png"))
    assert pictures and all(f"def {p.stem}() -> Picture:" in script for p in pictures)
    assert sum(p.stat().st_size for p in pictures) < 3 << 20


def test_notebook_runs() -> None:
    notebook = json.loads((ROOT / "examples/first_steps.ipynb").read_text())
    namespace: dict[str, Any] = {}
    for cell in notebook["cells"]:
        assert not cell.get("outputs"), "outputs are not kept: they would grow stale"
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), cell["id"], "exec"), namespace)


def test_space_serves_models_that_need_no_hands() -> None:
    space = runpy.run_path(str(ROOT / "spaces/app.py"))
    known = posezoo.list_models(pretrained=True, task="pose", tags=True)
    assert all(posezoo.get_pretrained_cfg(name).name in known for name in space["MODELS"])
    _, front, _ = (ROOT / "spaces/README.md").read_text().split("---\n", 2)
    fields = dict(line.split(": ", 1) for line in front.splitlines())
    assert fields["sdk"] == "gradio" and (ROOT / "spaces" / fields["app_file"]).is_file()


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "MODEL_CARDS.md", "CHANGELOG.md",
                                  "benchmarks/README.md", "docs"])  # fmt: skip
def test_links_to_files_and_pictures_resolve(name: str) -> None:
    path = ROOT / name
    for page in sorted(path.rglob("*.md")) if path.is_dir() else [path]:
        text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
        anchors = set(re.findall(r'<a id="([^"]+)"', text))
        for target in re.findall(r"\]\(([^)\s]+)\)", text):
            if target.startswith("#"):
                assert target[1:] in anchors, f"{page.name}: {target}"
            elif "://" not in target:
                file = target.partition("#")[0]
                assert (page.parent / file).is_file(), f"{page.name}: {target}"


def test_readme_is_short_and_promises_nothing_for_later() -> None:
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) <= 150 and "not yet" not in text


def test_code_that_is_not_run_is_the_smaller_part_and_says_why() -> None:
    blocks = [b for page in PAGES for b in blocks_of(page) if b.language != "json"]
    assert sum(not b.runs for b in blocks) < len(blocks) / 3
    assert not [b for b in blocks if "not run" in b.code and b.runs], "another form of the mark"


def test_every_public_name_is_in_the_reference() -> None:
    reference = (ROOT / "docs/reference/api.md").read_text()
    public = set(posezoo.__all__) - {"errors"}  # they have a page
    assert not {name for name in public if f".{name}\n" not in reference}


def test_every_command_and_environment_variable_has_its_line() -> None:
    reference = (ROOT / "docs/reference/cli.md").read_text()
    assert all(f"## {name}\n" in reference for name in main.list_commands(click.Context(main)))
    source = "".join(path.read_text() for path in (ROOT / "posezoo").rglob("*.py"))
    told = (ROOT / "docs/reference/environment.md").read_text()
    assert all(f"`{name}`" in told for name in set(re.findall(r'"(POSEZOO_[A-Z_]+)"', source)))
