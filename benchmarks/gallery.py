"""Draw the pictures of README and site, from what comes in the package; nothing is downloaded.

    python benchmarks/gallery.py                 # writes docs/assets/
    python benchmarks/gallery.py --only masks    # one of them

All people but one in a photo are rendered by posezoo.synthetic and seeds are fixed, so the same
machine draws the same bytes. Poses are what packaged weights find, drawn as they come. One picture
shows no trained network, and its caption says so: `regions`, what TCFormer's clustering does with
random weights.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from complete_pose import complete, draw
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from sheets import Picture, larger, row, rows

import posezoo
from posezoo.cli.rendered import beside, load_photo
from posezoo.draw import draw_poses
from posezoo.synthetic import render_film, render_scene
from posezoo.synthetic.bodies import Photographer
from posezoo.tokenview import token_rows

OUT = Path(__file__).parents[1] / "docs" / "assets"
POSE, BODIES = "hrnet_xs_192x144.rendered", "hrnet_s_192x144.bodies"
WHOLE_BODY, TOKENS = "hrnet_s_wholebody_256x192.bodies", "tmpose_s_192x144.bodies"
TOKENIZER = "pct_tokenizer_swin_base_woimgguide.rendered"
PERSON = 279, (360, 300), 1  # seed, (H, W), people: one person, all in sight


def poses() -> Picture:
    """Two rendered scenes, and the people and poses found in them."""
    shots = Photographer(2026, (320, 480), is_whole=True).shoot(1, 16)
    predictor = posezoo.PosePredictor(BODIES, device="cpu")
    pictures = []
    for i in (4, 11):
        pixels = np.ascontiguousarray(shots.images[i].permute(1, 2, 0).numpy())
        pictures.append(np.asarray(draw_poses(pixels, predictor(pixels))))
    return row(pictures)


def bodies() -> Picture:
    """The first eight rendered photographs of a seed, and the poses found in them."""
    shots = Photographer(2026, (256, 192)).shoot(0, 8)
    predictor = posezoo.PosePredictor(BODIES, device="cpu")
    pictures = []
    for image, box in zip(shots.images, shots.boxes):
        pixels = np.ascontiguousarray(image.permute(1, 2, 0).numpy())
        pictures.append(np.asarray(draw_poses(pixels, predictor(pixels, box[None].numpy()))))
    return rows(pictures, columns=4)


def photo() -> Picture:
    """The photo in the package, and the pose found in it."""
    pixels = load_photo()
    return beside(pixels, posezoo.PosePredictor(BODIES, device="cpu")(pixels))


def people() -> Picture:
    """Rendered photos of another seed, the people found in them, and their poses."""
    shots = Photographer(2026, (288, 288), is_whole=True).shoot(0, 8)
    predictor = posezoo.PosePredictor(BODIES, device="cpu")
    pictures = []
    for image in shots.images:
        pixels = np.ascontiguousarray(image.permute(1, 2, 0).numpy())
        found = predictor(pixels)
        pen = ImageDraw.Draw(drawn := draw_poses(pixels, found))
        for box in found.bboxes.tolist():
            pen.rectangle(box, outline=(255, 255, 255))
        pictures.append(np.asarray(drawn))
    return rows(pictures, columns=4)


def whole_body() -> Picture:
    """Rendered people, and the 133 keypoints found in them."""
    shots = Photographer(2026, (400, 300)).shoot(1, 8)
    predictor = posezoo.PosePredictor(WHOLE_BODY, device="cpu")
    pictures = []
    for i in range(4):
        pixels = np.ascontiguousarray(shots.images[i].permute(1, 2, 0).numpy())
        found = predictor(pixels, shots.boxes[i : i + 1].numpy())
        pictures.append(np.asarray(draw_poses(pixels, found)))
    return row(pictures)


def film() -> Picture:
    """Six frames of a rendered film, one of 4 among 24 in which all keep ids and so colours."""
    truth = list(render_film(25, frames=110, size=(270, 360), people=3))
    predictor = posezoo.PosePredictor(POSE, detector=_Boxes(truth), device="cpu")
    frames = predictor.stream([f.image for f in truth], track=True, smooth="one-euro")
    shown = [f for i, f in enumerate(frames) if i % 20 == 5]
    return rows([np.asarray(draw_poses(f.image, f.result)) for f in shown], columns=3)


class _Boxes:
    """A detector that knows the film: the true boxes of one frame after the other."""

    def __init__(self, film: list) -> None:
        self.left = iter(film)

    def __call__(self, image: Picture) -> tuple[NDArray, NDArray]:
        boxes = next(self.left).bboxes
        return boxes, np.ones(len(boxes))


def regions() -> Picture:
    """A crop, and the regions of TCFormer's tokens after stages 2, 3 and 4; random weights."""
    torch.manual_seed(0)
    model = posezoo.create_model("tcformer_mta_256x192").eval()
    scene = render_scene(*PERSON)
    predictor = posezoo.PosePredictor(model, device="cpu")
    return np.asarray(token_rows(predictor, scene.image, scene.bboxes))


def masks() -> Picture:
    """All visual tokens of a small TMPose, and 80, 60 and 40 % of them, with the poses found."""
    model = posezoo.create_model(TOKENS, pretrained=True)
    scene = render_scene(*PERSON)
    columns = []
    for ratio in (1.0, 0.8, 0.6, 0.4):
        model.set_mask_ratio(ratio)
        predictor = posezoo.PosePredictor(model, device="cpu")
        drawn = draw_poses(scene.image, predictor(scene.image, scene.bboxes), threshold=0.2)
        crop = predictor.crops(scene.image, scene.bboxes)[0].permute(1, 2, 0).numpy()
        seen = larger(crop, 2)  # (384, 288, 3)
        if ratio < 1:
            seen = np.asarray(token_rows(predictor, scene.image, scene.bboxes))
            seen = seen[:, -seen.shape[1] // 2 :]  # beside the crop
        seen = Image.fromarray(seen).resize((270, 360), Image.Resampling.NEAREST)
        columns.append(np.vstack([np.asarray(seen), np.asarray(drawn)[:, 15:285]]))
    return row(columns)


def completion() -> Picture:
    """A pose with three hidden keypoints, and completed from PCT's token space."""
    model = posezoo.create_model(TOKENIZER, pretrained=True)
    scene = render_scene(*PERSON)
    keypoints, box = scene.keypoints[0, :, :2], scene.bboxes[0]
    hidden = ("left_elbow", "left_wrist", "right_knee")
    names = posezoo.get_skeleton("coco").keypoint_names
    visible = torch.tensor([[name not in hidden for name in names]])
    completed, _ = complete(model, scene.image, keypoints, box, visible)
    before = draw(scene.image, keypoints, visible[0].numpy(), box)
    return row([before, draw(scene.image, completed, np.ones(17), box)])


def heatmaps() -> Picture:
    """A crop, and the heatmaps of five keypoints over it."""
    predictor = posezoo.PosePredictor(POSE, device="cpu")
    scene = render_scene(*PERSON)
    crop = predictor.crops(scene.image, scene.bboxes)
    with torch.inference_mode():
        maps = predictor.model(predictor.crop.normalise(crop).float())[0]  # (17, h, w)
    size = crop.shape[-2:]
    maps = torch.nn.functional.interpolate(maps[None], size, mode="bilinear")[0].clamp(0, 1)
    pixels = crop[0].permute(1, 2, 0).numpy()
    pictures = [larger(pixels, 2)]
    glow = np.array([255, 140, 0])
    for name in ("nose", "left_shoulder", "left_wrist", "right_knee", "right_ankle"):
        share = maps[posezoo.get_skeleton("coco").keypoint_names.index(name)].numpy()[..., None]
        mixed = pixels * 0.45 * (1 - share) + glow * share
        pictures.append(larger(mixed.round().astype(np.uint8), 2))
    return rows(pictures, columns=3)


PICTURES: dict[str, Callable[[], Picture]] = {
    function.__name__: function
    for function in (
        poses, bodies, people, photo, whole_body, film, regions, masks, completion, heatmaps
    )
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=PICTURES, default=list(PICTURES))
    parser.add_argument("--out", type=Path, default=OUT, help="folder (default: docs/assets)")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    for name in args.only:
        path = args.out / f"{name}.png"
        picture = Image.fromarray(PICTURES[name]())
        picture.save(path, optimize=True)
        print(f"{path}: {picture.width} x {picture.height}, {path.stat().st_size >> 10} KiB")


if __name__ == "__main__":
    main()
