"""`BatchPredictor`: poses for frameworks that hand out batches of rows, such as Ray Data.

import ray
from posezoo.batches import BatchPredictor

photos = ray.data.read_images("photos/", include_paths=True)
poses = photos.map_batches(
    BatchPredictor, fn_constructor_args=["vitpose_b_256x192"], batch_size=32,
    compute=ray.data.ActorPoolStrategy(size=2), num_gpus=1,
)
poses.write_json("poses/")

Without GPUs each of them holds one CPU of the cluster, or `num_cpus`. Leave one free: where they
hold all, none is left to read photos, and Ray waits for ever.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from .errors import InputError
from .predictor import PosePredictor

__all__ = ["BatchPredictor"]


class BatchPredictor:
    """Columns of images in, the same columns with `poses` instead of the images out.

    It is made once in each process and then called for each batch.

    Args:
        model: a pose model or its name.
        options: those of `PosePredictor`.

    Raises:
        InputError: see `PosePredictor`.
    """

    def __init__(self, model: nn.Module | str, **options: Any) -> None:
        self.predictor = PosePredictor(model, **options)

    def __call__(self, batch: Mapping[str, NDArray[Any]]) -> dict[str, Any]:
        """Find the poses of a batch.

        Args:
            batch: with a column `image` of uint8 RGB (H, W, 3) arrays, or `path` of files.

        Returns:
            The other columns, and `poses`: for each image the JSON text of `PoseResult.to_dict`,
            or of `{"error": reason}` where it has none.

        Raises:
            InputError: neither column is there.
        """
        columns = dict(batch)
        images = columns.pop("image", columns.get("path"))
        if images is None:
            raise InputError(
                f"the batch has the columns {', '.join(columns)}; valid: image, or path"
            )
        items = [(_image(image), None, None) for image in images]
        found = self.predictor.predict_each(items)
        poses = [
            {"error": str(one)} if isinstance(one, InputError) else one.to_dict() for one in found
        ]
        return {**columns, "poses": np.array([json.dumps(one) for one in poses], dtype=object)}


def _image(image: Any) -> Any:
    return image if isinstance(image, str) else np.asarray(image)
