"""Batches of rows, as Ray Data hands them out."""

from __future__ import annotations

import json

import numpy as np
import pytest

from people import make_photos, picture
from posezoo.batches import BatchPredictor
from posezoo.errors import InputError
from posezoo.results import PoseResult

MODEL = "hrnet_xs_128x96"


def test_columns_of_images_or_files_become_poses(tmp_path):
    predict = BatchPredictor(MODEL, detector=None)
    images = np.empty(2, dtype=object)
    images[:] = [picture(0), picture(1, (40, 60))]
    found = predict({"image": images, "id": np.array([4, 7])})
    assert set(found) == {"id", "poses"} and found["id"].tolist() == [4, 7]
    sizes = [PoseResult.from_dict(json.loads(text)).image_size for text in found["poses"]]
    assert sizes == [(90, 120), (40, 60)]
    folder = make_photos(tmp_path, 2)
    (folder / "00001.png").write_bytes(b"broken")
    found = predict({"path": np.array([str(path) for path in sorted(folder.iterdir())])})
    assert len(json.loads(found["poses"][0])["persons"]) == 1
    assert "00001.png" in json.loads(found["poses"][1])["error"]
    with pytest.raises(InputError, match="the columns a; valid: image, or path"):
        predict({"a": np.zeros(2)})


@pytest.mark.slow
def test_ray_maps_a_folder_of_photos(tmp_path):
    ray = pytest.importorskip("ray")
    pytest.importorskip("pyarrow")
    folder = make_photos(tmp_path / "in", 40)
    ray.init(num_cpus=3, include_dashboard=False, log_to_driver=False)  # two predict, one reads
    try:
        photos = ray.data.read_images(str(folder), include_paths=True)
        poses = photos.map_batches(
            BatchPredictor, fn_constructor_args=[MODEL],
            fn_constructor_kwargs={"detector": None}, batch_size=16,
            compute=ray.data.ActorPoolStrategy(size=2),
        )  # fmt: skip
        rows = poses.take_all()
    finally:
        ray.shutdown()
    alone = BatchPredictor(MODEL, detector=None)
    assert len(rows) == 40 and len({row["path"] for row in rows}) == 40
    for row in rows[:3]:
        (expected,) = alone({"path": np.array([row["path"]])})["poses"]
        mine, theirs = (PoseResult.from_dict(json.loads(t)) for t in (expected, row["poses"]))
        np.testing.assert_allclose(mine.keypoints, theirs.keypoints, atol=1e-3)
