"""The model families, one folder each. Importing this package registers all their architectures.

Nothing but data is imported: a family's network, and torch, when one of its models is built.
"""

from .hrnet_pose import variants as _hrnet_pose  # noqa: F401
from .pct import variants as _pct  # noqa: F401
from .tcformer import variants as _tcformer  # noqa: F401
from .tokenpose import variants as _tokenpose  # noqa: F401
from .uniformer import variants as _uniformer  # noqa: F401
from .vitpose import variants as _vitpose  # noqa: F401
