"""The networks that the setting `network` may name: one entry each.

To add a network, write a subclass of `base.PoseNetwork` in a file or folder of its own and add its
entry to `NETWORKS`. The values of the setting, the parameter help, the titles of reports and what
`ros2_pose train` can train follow from the entry. A network's module is imported when the network
is created: this module imports none of them, so that `config.py` can import it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import torch

    from ros2_pose.config import PoseConfig
    from ros2_pose.networks.base import Finder, PoseNetwork
    from ros2_pose.networks.refiner import Refiner
    from ros2_pose.networks.trainable import TrainableNet


class NetworkEntry(NamedTuple):
    """Where the parts of a network are found, each as "module:name".

    Attributes:
        network: subclass of `PoseNetwork` or `Refiner`.
        layers: subclass of `TrainableNet`; empty if it cannot be trained here.
        objective: module of the layers with their losses, see `training.trainer`.
    """

    network: str
    layers: str = ""
    objective: str = ""


NETWORKS: dict[str, NetworkEntry] = {
    "top_down": NetworkEntry("ros2_pose.networks.top_down:TopDown"),
    "top_down_bottom_up": NetworkEntry(
        "ros2_pose.networks.top_down_bottom_up:TopDownBottomUp"),
    "movenet": NetworkEntry("ros2_pose.networks.movenet:MoveNet"),
    "tian": NetworkEntry("ros2_pose.networks.tian.detector:Tian",
                         "ros2_pose.networks.tian.network:TianNet",
                         "ros2_pose.training.objective:Objective"),
    "das": NetworkEntry("ros2_pose.networks.das.detector:Das",
                        "ros2_pose.networks.das.network:DasNet",
                        "ros2_pose.training.das_objective:DasObjective"),
    "hourglass": NetworkEntry("ros2_pose.networks.hourglass.detector:HourglassTags",
                              "ros2_pose.networks.hourglass.network:HourglassNet",
                              "ros2_pose.training.hourglass_objective:HourglassObjective"),
    # The same layers, joints grouped by fields instead of tags.
    "paf": NetworkEntry("ros2_pose.networks.hourglass.detector:HourglassFields"),
}

# What may search the whole picture besides the networks: detectors of boxes.
DETECTORS: dict[str, str] = {"nanodet": "ros2_pose.networks.nanodet:NanoDet"}

# What a finder of another network may not be: it has finders itself.
_WITH_FINDERS = ("top_down", "top_down_bottom_up")


def finder_names() -> list[str]:
    """Return what the setting `finders` may name: networks without finders, and detectors."""
    return [*(name for name in NETWORKS if name not in _WITH_FINDERS), *DETECTORS]


# Top-down networks: they find the keypoints of one person in a crop.
REFINERS: dict[str, NetworkEntry] = {
    "thunder": NetworkEntry("ros2_pose.networks.thunder:Thunder"),
    "san": NetworkEntry("ros2_pose.networks.san.refiner:San",
                        "ros2_pose.networks.san.network:SanNet",
                        "ros2_pose.training.san_objective:SanObjective"),
}


def network_class(name: str) -> type[PoseNetwork]:
    """Return the class of a network by its name in `NETWORKS`."""
    return _imported(NETWORKS[name].network)


def create_network(config: PoseConfig, device: torch.device | str = "cpu") -> PoseNetwork:
    """Create the network that `config.network` names.

    Args:
        config: settings; every network reads those that concern it.
        device: torch device that the network computes on.
    """
    return network_class(config.network)(config, device)


def create_finder(name: str, config: PoseConfig, device: torch.device | str = "cpu") -> Finder:
    """Create a network or detector that finds people in the whole picture, by its name."""
    return _imported(DETECTORS.get(name) or NETWORKS[name].network)(config, device)


def create_refiner(config: PoseConfig, device: torch.device | str = "cpu") -> Refiner:
    """Create the top-down network that `config.refiner` names."""
    return _imported(REFINERS[config.refiner].network)(config, device)


def network_title(config: PoseConfig) -> str:
    """Return the configured network's title for reports, e.g. "movenet at 256, 512 px"."""
    return network_class(config.network).title(config)


def trainable_networks() -> list[str]:
    """Return the names of the networks that `ros2_pose train` can train."""
    return [name for name, entry in (NETWORKS | REFINERS).items() if entry.layers]


def is_trained(refiner: str) -> bool:
    """Return whether a network of `REFINERS` has a checkpoint that `ros2_pose train` wrote."""
    return bool(REFINERS[refiner].layers)


def layers_class(name: str) -> type[TrainableNet]:
    """Return the layers of a network of `trainable_networks`.

    Raises:
        KeyError: there is no such network.
    """
    return _imported((NETWORKS | REFINERS)[name].layers)


def objective_class(name: str) -> Any:
    """Return the layers with their losses of a network of `trainable_networks`."""
    return _imported((NETWORKS | REFINERS)[name].objective)


def _imported(path: str) -> Any:
    """Import "module:name"; ImportError names an entry that leads nowhere."""
    module, _, name = path.partition(":")
    try:
        return getattr(import_module(module), name)
    except (AttributeError, ModuleNotFoundError, ValueError) as error:
        if isinstance(error, ModuleNotFoundError) and error.name != module:
            raise  # a package that the network needs
        raise ImportError(f"NETWORKS names {path!r}, expected \"module:name\" of what exists: "
                          f"{error}") from error
