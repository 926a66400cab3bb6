"""Overrides: choices of the user, which everything else is planned around."""

from collections.abc import Iterator
from dataclasses import dataclass, field, fields, replace
from itertools import product
from math import prod
from pathlib import Path
from typing import cast, get_args

import yaml

from autospine.core.errors import FormatError, PlanError
from autospine.core.geometry import COARSEST_MM, FINEST_MM
from autospine.core.plugins import warn_if_hidden
from autospine.network.external import GROUP, find_external
from autospine.network.swin.swin_plan import SwinPlan
from autospine.network.swin.swin_settings import AttentionSettings, FusionPlacement
from autospine.plan import LARGEST_PATCH, Configuration
from autospine.storage.file_names import read_text
from autospine.storage.serialization import from_plain, stored_as
from planners.networks.network_request import (
    BUILT_IN,
    SWIN_NETWORKS,
    AttentionChoice,
    NetworkRequest,
    WeightingChoice,
    default_request,
    known_networks,
)
from planners.planning_options import PlanningOptions


@stored_as("overrides", largest=2**20)
@dataclass(frozen=True, kw_only=True, slots=True)
class Overrides(PlanningOptions):
    """Choices of the user, checked; everything else is planned around them.

    Raises:
        PlanError: If an override is unknown, out of its range, or without effect.
    """

    loss_settings: dict[str, bool | int | float | str] = field(default_factory=dict)
    """Keyword arguments that the loss is made with."""

    of_model: bool = False
    """Whether the network is that of a trained model (`like`)."""

    @property
    def requests(self) -> tuple[NetworkRequest, ...]:
        """The networks to plan for, each once."""
        requests = [request for network in self.networks for request in self._variants(network)]
        return tuple({request.suffix: request for request in requests}.values())

    def _variants(self, network: str) -> Iterator[NetworkRequest]:
        """Yield the network with every combination of the options that apply to it."""
        usual = replace(default_request(network), checkpointing=self.checkpointing)
        if network not in SWIN_NETWORKS:
            yield usual
            return
        for attention, weighting, placement in product(
            self.attention or (usual.attention,),
            self.fusion_weighting or (usual.weighting,),
            self.fusion_placement or (usual.placement,),
        ):
            stages = usual.stages
            if self.adaptive_stages is not None:
                first, second, third, fourth = (stage in self.adaptive_stages for stage in range(1, 5))
                stages = (first, second, third, fourth)
            yield replace(
                usual,
                attention=cast(AttentionChoice, attention),
                weighting=cast(WeightingChoice, weighting),
                placement=cast(FusionPlacement, placement),
                stages=stages,
                levels=self.fusion_levels,
                gradient_channel=self.gradient_channel,
                v2_blocks=self.v2_blocks,
                of_model=self.of_model,
            )

    def like(self, configuration: Configuration) -> "Overrides":
        """Return these overrides with the sizes and the network of a configuration, for its weights to fit.

        Args:
            configuration: That of a trained model.
        """
        network = configuration.network
        swin = network if isinstance(network, SwinPlan) else None
        return replace(
            self,
            spacing_mm=configuration.spacing_mm,
            patch_size=configuration.patch_size,
            networks=(network.name,),
            feature_size=None if swin is None else swin.feature_size,
            fusion_levels=swin is None or swin.fusion is None or swin.fusion.levels,
            gradient_channel=swin is None
            or not isinstance(swin.attention, AttentionSettings)
            or swin.attention.gradient_channel,
            v2_blocks=swin is None or swin.use_v2,
            of_model=True,
        )

    def __post_init__(self) -> None:
        self._check_networks()
        width = self.feature_size
        if width is not None and (width % 4 or not 8 <= width <= 96):
            raise PlanError(f"expected --feature-size from 8 to 96, a multiple of 4, found {width}")
        if self.spacing_mm is not None and not all(FINEST_MM <= d <= COARSEST_MM for d in self.spacing_mm):
            raise PlanError(
                f"expected --spacing of three lengths from {FINEST_MM} to {COARSEST_MM:g} mm, "
                f"found {self.spacing_mm}"
            )
        if self.patch_size is not None and not (
            min(self.patch_size) >= 1 and prod(self.patch_size) <= LARGEST_PATCH
        ):
            raise PlanError(
                f"expected --patch of three positive numbers, with at most {LARGEST_PATCH} voxels, found "
                f"{self.patch_size}"
            )

    def _check_networks(self) -> None:
        known = known_networks()
        if not self.networks or self.adaptive_stages == ():
            raise PlanError("expected at least one network, and one stage where stages are given, found none")
        for option, values, allowed in (
            ("--network", self.networks, known),
            ("--attention", self.attention, get_args(AttentionChoice)),
            ("--fusion-weighting", self.fusion_weighting, get_args(WeightingChoice)),
            ("--fusion-placement", self.fusion_placement, get_args(FusionPlacement)),
            ("--adaptive-stages", self.adaptive_stages or (), (1, 2, 3, 4)),
        ):
            for value in values:
                if value not in allowed:
                    listed = ", ".join(str(item) for item in allowed)
                    raise PlanError(f"expected {option} among {listed}, found {value!r}; choose one of them")
        mechanisms = (
            *(self.attention, self.fusion_weighting, self.fusion_placement, self.adaptive_stages),
            *(not self.fusion_levels, not self.gradient_channel, not self.v2_blocks),
        )
        if any(mechanisms) and not set(self.networks) & set(SWIN_NETWORKS):
            raise PlanError(
                "expected a network that attention and fusion options apply to "
                f"({' or '.join(SWIN_NETWORKS)}), found --network {', '.join(self.networks)}; "
                "leave the options out or add such a network"
            )
        self._check_effect()
        for name in self.networks:
            if name in BUILT_IN:
                warn_if_hidden(GROUP, name, "network")
            else:
                find_external(name).load()

    def _check_effect(self) -> None:
        """Refuse options that would change none of the networks."""
        requests = [request for request in self.requests if request.network in SWIN_NETWORKS]
        if self.adaptive_stages is not None and all(each.attention != "adaptive" for each in requests):
            raise PlanError(
                "expected a network with adaptive attention for --adaptive-stages, found none; "
                "leave it out or add --attention adaptive"
            )
        if self.fusion_placement and all(each.weighting == "off" for each in requests):
            raise PlanError(
                "expected a network with fusion for --fusion-placement, found none; "
                "leave it out or add --fusion-weighting trainable"
            )


def read_overrides(path: Path) -> Overrides:
    """Read overrides from a YAML file, whose keys are the fields of `Overrides`.

    Args:
        path: The YAML file.

    Raises:
        FormatError: If it is no such file; lists every entry that does not fit.
        PlanError: If an override is against the rules.
    """
    try:
        text = read_text(path)
        content, twice = yaml.safe_load(text), _given_twice(text)
    except (OSError, yaml.YAMLError, RecursionError) as error:
        deep = isinstance(error, RecursionError)
        reason = "entries nested too deeply" if deep else " ".join(str(error).split())
        raise FormatError(
            f"expected overrides for the plan in {path}, found {reason}; mend the file"
        ) from None
    if content is not None and not isinstance(content, dict):
        raise FormatError(
            f"expected overrides for the plan in {path}, such as `feature_size: 24` on a line of its own, "
            f"found {type(content).__name__}; mend the file"
        )
    if twice:
        raise FormatError(
            f"expected each override once in {path}, found {', '.join(twice)} again; mend the file"
        )
    known = [field.name for field in fields(Overrides)]
    if unknown := [str(name) for name in content or () if name not in known]:
        raise FormatError(
            f"expected overrides among {', '.join(known)} in {path}, found {', '.join(unknown)}; "
            "mend the file"
        )
    try:
        return from_plain(content or {}, Overrides, str(path))
    except PlanError as error:
        raise PlanError(f"{error} (in {path})") from None


def _given_twice(text: str) -> list[str]:
    """Return the keys that a YAML file has more than once; YAML would silently keep the last of each."""
    node = yaml.compose(text, yaml.SafeLoader)
    names = [key.value for key, _ in node.value] if isinstance(node, yaml.MappingNode) else []
    return sorted({name for name in names if names.count(name) > 1})
