"""The model families. Importing this package registers every model, and does nothing else."""

from . import pct, pct_tokenizer, swin, tcformer, tcformer_mta, tokenpose, uniformer  # noqa: F401
