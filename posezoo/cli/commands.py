"""The command line: `posezoo list | info | predict | convert | eval | train | demo`.

Each command parses its options, makes one call into the library, and prints. Exit codes: 0 fine,
1 a file failed or a result is outside its tolerance, 2 wrong usage.
"""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path
from typing import Any

import click

from ..errors import PoseZooError

__all__ = ["main"]


class _Group(click.Group):
    """Turns errors of the library and of the file system into one line and exit code 1 (2 for
    unknown names)."""

    def invoke(self, ctx: click.Context) -> Any:
        from ..errors import InputError, UnknownModelError

        try:
            return super().invoke(ctx)
        except PoseZooError as error:
            click.echo(f"posezoo: error: {error}", err=True)
            sys.exit(2 if isinstance(error, (InputError, UnknownModelError)) else 1)
        except OSError as error:
            if error.strerror is None:
                raise
            click.echo(f"posezoo: error: {error.strerror}: {error.filename}", err=True)
            sys.exit(1)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="posezoo")
def main() -> None:
    """Accurate human-pose models: list them, use them, evaluate them."""


# ------------------------------------------------------------------------------- list, info


@main.command("list")
@click.argument("pattern", default="*")
@click.option("--task", type=click.Choice(["pose", "classification", "tokenizer"]), default=None)
@click.option("--pretrained", is_flag=True, help="Only models with weights that can be had.")
@click.option("--tags", is_flag=True, help="One line per set of weights: architecture.tag.")
@click.option("--json", "as_json", is_flag=True, help="Machine-readable output.")
def list_command(pattern: str, task: Any, pretrained: bool, tags: bool, as_json: bool) -> None:
    """List models whose name matches PATTERN (shell wildcards, default all)."""
    from ..zoo import catalog as _registry

    names = _registry.list_models(pattern, task=task, pretrained=pretrained, tags=tags)
    if as_json:
        cfgs = [_registry.get_pretrained_cfg(name) for name in names]
        rows = [
            {
                "name": n,
                "task": c.task,
                "dataset": c.dataset,
                "input_size": list(c.input.size),
                "params": c.params,
                "macs": c.macs,
                "has_weights": c.has_weights,
            }
            for n, c in zip(names, cfgs)
        ]
        click.echo(json.dumps(rows, indent=2))
        return
    for name in names:
        cfg = _registry.get_pretrained_cfg(name)
        size = f"{cfg.input.size[0]}x{cfg.input.size[1]}"
        params = f"{cfg.params / 1e6:.1f} M" if cfg.params else "-"
        macs = f"{cfg.macs / 1e9:.1f} GMACs" if cfg.macs else "-"
        note = "" if cfg.has_weights else "  (no published weights)"
        click.echo(f"{name:42s} {cfg.dataset:15s} {size:>8s} {params:>9s} {macs:>12s}{note}")
    if not names:
        click.echo(f"no model matches {pattern!r}", err=True)


@main.command()
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="The configuration as JSON.")
def info(name: str, as_json: bool) -> None:
    """Show what is known about the model NAME (architecture[.tag])."""
    from ..zoo import catalog as _registry

    cfg = _registry.get_pretrained_cfg(name)
    if as_json:
        click.echo(json.dumps(cfg.to_dict(), indent=2))
        return
    click.echo(f"{cfg.name}: {cfg.description}")
    source, decode = cfg.source, cfg.decode
    lines: list[tuple[str, Any]] = [
        ("task", f"{cfg.task}, {cfg.dataset}"),
        ("input", f"{cfg.input.size[0]}x{cfg.input.size[1]} (HxW)"),
        ("params", f"{cfg.params / 1e6:.2f} M" if cfg.params else None),
        ("MACs", f"{cfg.macs / 1e9:.2f} G" if cfg.macs else None),
        ("crop", f"{cfg.input.geometry}, padding {cfg.input.bbox_padding}" if decode else None),
        (
            "decode",
            f"{decode.codec}, {decode.refine}, flip test {decode.flip_test}" if decode else None,
        ),
        ("weights", _place_of_weights(cfg)),
        ("original", ", ".join(source.original_urls) or source.original_page),
        ("license", source.license),
        ("data terms", source.dataset_license),
        ("paper", source.paper),
    ]
    for label, value in lines:
        if value:
            click.echo(f"  {label:11s} {value}")
    if cfg.metrics:
        values = "  ".join(f"{k} {100 * v:.1f}" for k, v in cfg.metrics.values.items())
        click.echo(
            f"  {'reported':11s} {values}\n  {'':11s} {cfg.metrics.protocol}; {cfg.metrics.url}"
        )
    click.echo(
        "  arguments   "
        + ", ".join(
            f"{k}={v!r}"
            for k, v in (_registry.model_arguments(cfg.architecture) | dict(cfg.model_args)).items()
        )
    )


def _place_of_weights(cfg: Any) -> str | None:
    from ..weights import hub as _hub

    if cfg.source.packaged:
        return f"in the package: weights/{cfg.source.packaged}"
    return f"hf-hub:{_hub.hub_id(cfg)}" if cfg.has_weights else cfg.source.unavailable


# ------------------------------------------------------------------------------- predict


@main.command()
@click.argument("images", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--model", "name", required=True, help="Registered name, hf-hub:… or local-dir:…")
@click.option("--checkpoint", type=click.Path(path_type=Path), help="Weights file to use instead.")
@click.option(
    "--boxes",
    type=click.Path(path_type=Path),
    help="COCO annotations or detections, or {file name: [[x1, y1, x2, y2], …]}; "
    "default: ask a detector.",
)
@click.option("--whole-image", is_flag=True, help="No boxes: the whole image is one person.")
@click.option("--detector", default="auto", show_default=True, help="torchvision detector.")
@click.option("--box-threshold", default=0.0, show_default=True, help="Smallest box score used.")
@click.option("--out", type=click.Path(path_type=Path), help="JSON file (default: stdout).")
@click.option("--draw", type=click.Path(path_type=Path), help="PNG file, or folder for several.")
@click.option("--draw-threshold", default=0.3, show_default=True, help="Smallest score drawn.")
@click.option(
    "--draw-tokens",
    type=click.Path(path_type=Path),
    help="TCFormer: PNG or folder, the regions its tokens stand for.",
)
@click.option("--device", default=None, help="cpu, cuda, cuda:1 … (default: cuda if there is one)")
@click.option("--batch-size", default=64, show_default=True, help="Crops per forward.")
@click.option("--flip-test/--no-flip-test", default=None, help="Default: the recipe's choice.")
def predict(
    images: tuple[Path, ...],
    name: str,
    checkpoint: Path | None,
    boxes: Path | None,
    whole_image: bool,
    detector: str,
    box_threshold: float,
    out: Path | None,
    draw: Path | None,
    draw_threshold: float,
    draw_tokens: Path | None,
    device: str | None,
    batch_size: int,
    flip_test: bool | None,
) -> None:
    """Find the people's keypoints in IMAGES."""
    from .. import PosePredictor, PoseResult, create_model
    from ..device import choose_device
    from . import photos as _predict

    known = None if boxes is None else _predict.read_boxes(boxes, box_threshold)
    predictor = PosePredictor(
        create_model(name, pretrained=checkpoint is None, checkpoint=checkpoint),
        detector=None if whole_image else detector,
        device=choose_device(device),
        batch_size=batch_size,
        flip_test=flip_test,
    )
    if draw_tokens is not None:
        _predict.check_regions(predictor)
    outcome = list(_predict.predict_files(predictor, images, known, progress=sys.stderr.isatty()))
    good = [(path, result) for path, result in outcome if isinstance(result, PoseResult)]
    text = json.dumps(
        [
            {"file": str(path)}
            | (result.to_dict() if isinstance(result, PoseResult) else {"error": str(result)})
            for path, result in outcome
        ]
    )
    if out is None:
        click.echo(text)
    else:
        _predict.write_text(out, text + "\n")
    if draw is not None:
        for drawn in _predict.draw_files(good, draw, threshold=draw_threshold):
            click.echo(f"drew {drawn}", err=True)
    if draw_tokens is not None:
        for drawn in _predict.draw_token_files(predictor, good, draw_tokens):
            click.echo(f"drew {drawn}", err=True)
    for path, result in outcome:
        if not isinstance(result, PoseResult):
            click.echo(f"posezoo: error: {path}: {result}", err=True)
    sys.exit(0 if len(good) == len(outcome) else 1)


# ------------------------------------------------------------------------------- convert, eval


@main.command()
@click.argument("source", type=click.Path(path_type=Path))
@click.option("--model", "name", required=True, help="Registered name: architecture[.tag].")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="Folder to write; default: where pretrained=True looks first.",
)
def convert(source: Path, name: str, out: Path | None) -> None:
    """Convert the authors' checkpoint SOURCE to safetensors. Nothing in it is executed."""
    from ..weights.convert import convert_file

    report = convert_file(source, name, out)
    click.echo(f"input    sha256 {report.sha256}")
    click.echo(
        f"tensors  {report.read} read, {report.used} used, {report.read - report.used} ignored"
    )
    for reason, count in report.ignored.items():
        click.echo(f"         {count} ignored: {reason}")
    click.echo(f"output   sha256 {report.output_sha256}")
    click.echo(f"written  {report.directory}")


@main.command("eval")
@click.argument("name")
@click.option(
    "--data", required=True, type=click.Path(path_type=Path), help="Folder of the data set."
)
@click.option(
    "--boxes",
    default="det",
    show_default=True,
    help="'gt', a detection file, or 'det': the common one (person AP 56.4) in the folder.",
)
@click.option(
    "--annotations",
    type=click.Path(path_type=Path),
    help="Annotation file; default: the usual one of the model's data set.",
)
@click.option("--checkpoint", type=click.Path(path_type=Path), help="Weights file to use instead.")
@click.option("--out", type=click.Path(path_type=Path), help="Folder for results and record.")
@click.option("--device", default=None, help="cpu, cuda, … (default: cuda if there is one)")
@click.option(
    "--dtype",
    type=click.Choice(["float32", "float64", "bfloat16", "float16"]),
    default="float32",
    show_default=True,
)
@click.option("--tf32/--no-tf32", default=False, show_default=True, help="TF32 products on CUDA.")
@click.option("--compile", is_flag=True, help="Run the network through torch.compile.")
@click.option(
    "--batch-size",
    type=click.IntRange(min=1),
    default=64,
    show_default=True,
    help="Crops or images per forward.",
)
@click.option(
    "--workers",
    type=click.IntRange(min=1),
    default=4,
    show_default=True,
    help="Threads that read images.",
)
@click.option("--flip-test/--no-flip-test", default=None, help="Default: the recipe's choice.")
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    help="First so many images only; partial, not comparable.",
)
@click.option(
    "--shard",
    metavar="I/N",
    help="Do part I of N only (from 0); needs --out. The last part to finish scores.",
)
@click.option("--resume", is_flag=True, help="Finish the run that --out holds.")
@click.option("--skip-bad", is_flag=True, help="Exit 0 although images could not be used.")
def eval_command(
    name: str,
    data: Path,
    boxes: str,
    annotations: Path | None,
    checkpoint: Path | None,
    dtype: str,
    tf32: bool,
    compile: bool,
    flip_test: bool | None,
    limit: int | None,
    shard: str | None,
    skip_bad: bool,
    **options: Any,
) -> None:
    """Evaluate the model NAME on its data set and print the table row.

    Several processes: torchrun --nproc-per-node N -m posezoo eval NAME … --out DIR
    """
    import torch

    from .. import create_model
    from ..evaluation import EvaluationSettings, RunOptions, evaluate_model

    settings = EvaluationSettings(
        boxes=boxes, annotations=annotations, dtype=getattr(torch, dtype), tf32=tf32,
        compile=compile, flip_test=flip_test, limit=limit,
    )  # fmt: skip
    run = RunOptions(
        share=_share(shard), progress=sys.stderr.isatty(),
        command="posezoo " + " ".join(sys.argv[1:]), **options,
    )  # fmt: skip
    model = create_model(name, pretrained=checkpoint is None, checkpoint=checkpoint)
    record = evaluate_model(model, data, settings, run)
    if record is None:
        click.echo(
            "this share is done; whoever finishes last scores (if nobody did: the same command "
            "with --resume and without --shard)",
            err=True,
        )
        return
    click.echo(record.table())
    click.echo(json.dumps(record.to_dict()))
    for reason in record.bad.values():  # each names its file
        click.echo(f"posezoo: not used: {reason}", err=True)
    sys.exit(1 if record.bad and not skip_bad else 0)


def _share(text: str | None) -> Any:
    if text is None:
        return None
    from ..evaluation import Share

    try:
        index, count = map(int, text.split("/"))
    except ValueError as error:
        raise click.BadParameter(
            f"{text!r} is not I/N, such as 0/4", param_hint="--shard"
        ) from error
    return Share(index=index, count=count)


# ------------------------------------------------------------------------------- training


@main.command()
@click.argument("recipe")
@click.option(
    "--data", required=True, type=click.Path(path_type=Path), help="Folder of the data set."
)
@click.option(
    "--out",
    required=True,
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder of the run; resumes.",
)
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="Change the recipe.")
@click.option(
    "--init", help="Start: a name with weights, a file, or scratch; default: as it was published."
)
@click.option(
    "--skeleton",
    type=click.Path(path_type=Path),
    help="Keypoints of your own: JSON with name, keypoint_names, sigmas, flip_pairs, limbs.",
)
@click.option("--device", default=None, help="cpu, cuda, … (default: cuda if there is one)")
@click.option(
    "--workers",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Processes that read images.",
)
def train(
    recipe: str,
    data: Path,
    out: Path,
    settings: tuple[str, ...],
    init: str | None,
    skeleton: Path | None,
    device: str | None,
    workers: int,
) -> None:
    """Train the architecture RECIPE as it was published, or with changes.

    Own keypoints: posezoo train RECIPE --init NAME --skeleton mine.json --data DIR --out DIR,
    where the data is laid out as COCO is.

    Many GPUs: torchrun --nproc-per-node N -m posezoo train RECIPE …
    """
    from tqdm import tqdm

    from .. import Skeleton
    from ..training.loop import Progress, train
    from ..training.recipes import get_recipe, override

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    pairs = dict(text.partition("=")[::2] for text in settings)
    chosen = override(get_recipe(recipe), pairs)
    with tqdm(unit="step", disable=not sys.stderr.isatty()) as bar:

        def report(progress: Progress) -> None:
            bar.total = progress.steps
            bar.update(progress.step - bar.n)
            value = "" if progress.value is None else f"{100 * progress.value:.1f}"
            text = f"loss {progress.loss:.3g}" + (value and f", {progress.metric} {value}")
            bar.set_description(text, refresh=False)

        end = train(
            chosen, data, out, init=init, device=device, workers=workers, report=report,
            skeleton=None if skeleton is None else Skeleton.from_json(skeleton),
        )  # fmt: skip
    if end.value is not None and end.best is not None:
        values = f"{100 * end.value:.1f} at the end, {100 * end.best:.1f} at best"
        click.echo(f"{end.metric} {values}")
    click.echo(f"written  {out}")


@main.command()
@click.argument("name")
@click.option("--out", type=click.Path(path_type=Path), required=True, help=".pt2 or .onnx file.")
@click.option("--checkpoint", type=click.Path(path_type=Path), help="Weights file to use instead.")
def export(name: str, out: Path, checkpoint: Path | None) -> None:
    """Write the model NAME as a file that runs without posezoo.

    It takes normalised images (B, 3, H, W) and returns the network's raw output; cropping and
    decoding stay outside.
    """
    from .. import create_model
    from ..export import export_model

    model = create_model(name, pretrained=checkpoint is None, checkpoint=checkpoint)
    difference = export_model(model, out)
    click.echo(f"written  {out}; differs from the model by {difference:.1e} of the output's spread")


@main.command()
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path("posezoo_demo.png"),
    show_default=True,
    help="Picture to write.",
)
@click.option(
    "--images",
    type=click.IntRange(min=1),
    default=150,
    show_default=True,
    help="Rendered images to score.",
)
def demo(out: Path, images: int) -> None:
    """Find poses in rendered people with the weights in the package; offline."""
    from ..zoo import catalog as _registry
    from .demo import MODEL, run_demo

    cfg = _registry.get_pretrained_cfg(MODEL)
    click.echo(f"model    {MODEL}: {(cfg.params or 0) / 1e6:.1f} M parameters, in the package")
    report = run_demo(out, images)
    click.echo(
        f"picture  {out}: {report.found} people, "
        f"poses found in {1000 * report.pose_seconds:.0f} ms on the CPU"
    )
    values = "  ".join(f"{k} {100 * report.statistics[k]:.1f}" for k in ("AP", "AP50", "AP75"))
    click.echo(
        f"scored   {values}\n"
        f"         {report.people} rendered people in {report.images} images the model has never "
        "seen; boxes given, flip test"
    )
    click.echo(f"time     {report.seconds:.0f} s, no network")
    click.echo(
        "\nThese weights know rendered people only. For photos:\n"
        "  posezoo list --pretrained\n"
        "  posezoo predict photo.jpg --model uniformer_s_256x192 --draw poses.png"
    )


# ------------------------------------------------------------------------------- weights


@main.command()
@click.argument("names", nargs=-1)
def verify(names: tuple[str, ...]) -> None:
    """Check the weights of NAMES (default: all that are in the cache) against their hashes."""
    from ..weights.verify import verify_cached

    bad = 0
    for report in verify_cached(list(names) or ["*"]):
        bad += report.state == "damaged"
        click.echo(f"{report.name:42s} {report.state:10s} {report.detail}")
    sys.exit(1 if bad else 0)


@main.command()
@click.argument("directory", type=click.Path(path_type=Path))
@click.option("--repo", required=True, help="Hub repository: org/name.")
@click.option("--private", is_flag=True, help="Make the repository private if it is created.")
def push(directory: Path, repo: str, private: bool) -> None:
    """Upload DIRECTORY, written by `posezoo convert` or save_pretrained, to the Hub."""
    from .. import push_to_hub

    click.echo(push_to_hub(directory, repo, private=private))


@main.command()
@click.argument("patterns", nargs=-1)
@click.option("--namespace", required=True, help="Hub user or organisation.")
@click.option("--dry-run", is_flag=True, help="Do everything but upload.")
@click.option("--private", is_flag=True, help="Make new repositories private.")
def publish(patterns: tuple[str, ...], namespace: str, dry_run: bool, private: bool) -> None:
    """Fetch, convert, verify and upload every architecture.tag that matches PATTERNS."""
    from ..weights import publish as _publish

    failed = 0
    for report in _publish.publish(
        list(patterns) or ["*"], namespace, dry_run=dry_run, private=private
    ):
        failed += report.state == "failed"
        click.echo(f"{report.repo_id:52s} {report.state:14s} {report.detail}")
    sys.exit(1 if failed else 0)
