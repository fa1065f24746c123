"""The model families. Importing this package registers every model, and does nothing else."""

from .hrnet_pose import network as hrnet_pose  # noqa: F401
from .pct import network as pct  # noqa: F401
from .pct import swin, tokenizer  # noqa: F401
from .tcformer import mta, network  # noqa: F401
from .tokenpose import network as tokenpose  # noqa: F401
from .uniformer import network as uniformer  # noqa: F401
from .vitpose import variants as vitpose  # noqa: F401
