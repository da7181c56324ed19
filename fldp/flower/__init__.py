"""On a real federation: Flower moves the messages, fldp decides what of them counts and leaves.

Who is inside the trust boundary under central trust: the SuperLink with its database and its logs,
which hold clients' updates in the clear, and whoever may submit runs, because a run brings the code
of the server and of the devices. The guarantee is against those who see the models.
"""

from __future__ import annotations

try:
    # Older versions of Flower lack it, and much else that is used here.
    from flwr.serverapp.exception import PrivacyBudgetExhausted as PrivacyBudgetExhausted
except ImportError as error:
    raise ImportError(
        "fldp.flower needs Flower 1.42, and it is not here: pip install 'fldp[flower]', in an "
        "environment of its own, because Flower holds other packages back"
    ) from error

from fldp.flower.client import local_dp
from fldp.flower.deployment import from_environment
from fldp.flower.strategy import Private

__all__ = ["Private", "from_environment", "local_dp"]
