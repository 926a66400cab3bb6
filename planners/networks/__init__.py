"""The planners of the networks: how the settings of each network follow from the dataset and the device.

A built-in network has a planner in this folder and a line in `_PLANNERS`; networks of other distributions
share `ExternalPlanner`.
"""

from typing import Any

from planners.networks.cnn_planner import CNNPlanner
from planners.networks.external_planner import ExternalPlanner
from planners.networks.network_planner import NetworkPlanner, PlanningContext
from planners.networks.network_request import BUILT_IN, NetworkRequest
from planners.networks.swin_planner import SwinPlanner
from planners.networks.unet_planner import UNetPlanner

__all__ = ["NetworkPlanner", "NetworkRequest", "PlanningContext", "network_planner"]

_PLANNERS: dict[str, type[NetworkPlanner[Any]]] = {
    "adaptive_swin_unetr": SwinPlanner,
    "swin_unetr": SwinPlanner,
    "cnn3d": CNNPlanner,
    "unet3d": UNetPlanner,
    "unet3d_transformer": UNetPlanner,
    "resenc_unet": UNetPlanner,
}


def network_planner(request: NetworkRequest, context: PlanningContext) -> NetworkPlanner[Any]:
    """Return the planner of the requested network."""
    planner = _PLANNERS[request.network] if request.network in BUILT_IN else ExternalPlanner
    return planner(request, context)
