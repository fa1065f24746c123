"""The model families. Importing this package registers every model, and does nothing else."""

from . import (  # noqa: F401
    hrnet_pose,
    pct,
    pct_tokenizer,
    swin,
    tcformer,
    tcformer_mta,
    tokenpose,
    uniformer,
)
