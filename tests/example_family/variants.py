"""The example family's one architecture."""

from __future__ import annotations

from posezoo.zoo.arguments import IN_CHANS, NUM_KEYPOINTS
from posezoo.zoo.config import DecodeCfg, InputCfg, PretrainedCfg, SourceCfg
from posezoo.zoo.registry import register

SIZE = (64, 48)

register(
    "example_pose_64x48",
    summary="Example, 64x48, COCO 17 keypoints.",
    build="example_family.network:build_pose",
    fixed={"width": 8, "depth": 2, "input_size": SIZE},
    args={"num_keypoints": NUM_KEYPOINTS, "in_chans": IN_CHANS},
    cfgs={
        "coco": PretrainedCfg(
            task="pose",
            dataset="coco",
            description="a small heatmap model that shows how a family is added",
            source=SourceCfg(unavailable="it was never trained", paper="none"),
            input=InputCfg(size=SIZE, bbox_padding=1.25, geometry="mmpose1"),
            decode=DecodeCfg(codec="heatmap", heatmap_size=(16, 12), refine="quarter"),
            params=2_129,
            macs=500_000,
        )
    },
)
