"""The planner of the Swin UNETR, with whatever mechanisms are requested."""

from functools import cached_property
from typing import Literal, cast

from autospine.core.types import Shape3
from autospine.network.network_plan import total_stride
from autospine.network.swin.swin_plan import SwinPlan, token_grids
from autospine.network.swin.swin_settings import AttentionKind, AttentionSettings, FusionSettings
from planners import rules
from planners.networks.network_planner import NetworkPlanner
from planners.networks.network_request import default_request
from planners.rationale import Note

LevelStrides = tuple[Shape3, Shape3, Shape3, Shape3, Shape3]
StageWindows = tuple[Shape3, Shape3, Shape3, Shape3]


class SwinPlanner(NetworkPlanner[SwinPlan]):
    """Strides by the spacing, windows that tile the token grids, and fusion kernels by the structures."""

    @property
    def widths(self) -> tuple[int, ...]:
        """Widths that the rules name for the device."""
        return self.context.device.widths

    @cached_property
    def strides(self) -> tuple[LevelStrides, str]:
        """Strides of the embedding and the mergings, and their reason."""
        levels, why = rules.strides(self.context.spacing_mm, self.context.patch_size or self.context.shape)
        return cast(LevelStrides, levels), why

    def divisor(self, patch: Shape3) -> Shape3:
        """Return the product of the strides."""
        return total_stride(self.strides[0])

    def network(self, width: int, patch: Shape3) -> SwinPlan:
        """Return the network whose windows tile the patch's token grids."""
        strides, _ = self.strides
        windows, _ = rules.windows(token_grids(patch, strides), self.context.device.largest_window)
        return SwinPlan(
            name=cast(Literal["adaptive_swin_unetr", "swin_unetr"], self.request.network),
            feature_size=width,
            depths=(2, 2, 2, 2),
            num_heads=rules.heads(width),
            window_sizes=cast(StageWindows, windows),
            strides=strides,
            use_v2=self.request.v2_blocks,
            fusion=self._fusion(),
            attention=self._attention(),
            checkpointing=self.request.checkpointing,
        )

    def notes(self, network: SwinPlan, width_reason: str) -> list[Note]:
        """Return the reasons for strides, width, windows, fusion and attention."""
        _, tiling = rules.windows([(1, 1, 1)], self.context.device.largest_window)
        notes: list[Note] = [
            ("strides", network.strides, self.strides[1]),
            ("feature_size", network.feature_size, width_reason),
            ("window_sizes", network.window_sizes, tiling),
        ]
        if network.fusion is not None:
            notes.append(("fusion_kernels", network.fusion.kernels, self._kernels()[1]))
        elif self.request.weighting == "off":
            notes.append(("fusion", "off", self._why("the network's", "weighting")))
        else:
            notes.append(("fusion", "off", "no structure is wider than the embedding's kernel"))
        return [*notes, *self._mechanism_notes(network)]

    def _mechanism_notes(self, network: SwinPlan) -> list[Note]:
        """Return the reasons for blocks, heads, attention and fusion."""
        attention, reason = str(self.request.attention), "the network's"
        if isinstance(network.attention, AttentionSettings):
            stages = (str(i + 1) for i, on in enumerate(network.attention.saliency) if on)
            attention = f"adaptive in stages {', '.join(stages)}"
            reason = "where the token grid is fine enough to show edges"
            if network.attention.gradient_channel:
                attention += ", gradient shown to the convolutions"
        blocks = f"{network.depths[0]} per stage, {'' if network.use_v2 else 'no '}convolutions first"
        depth = "Swin UNETR's depth; in SwinUNETR-V2 the convolutions gained 1.5 points of Dice"
        heads = ", ".join(map(str, network.num_heads))
        notes: list[Note] = [
            ("blocks", blocks, self._why(depth, "v2_blocks")),
            ("num_heads", heads, "Swin UNETR's where they divide the channels"),
            ("attention", attention, self._why(reason, "attention", "stages", "gradient_channel")),
        ]
        if network.fusion is not None:
            value = f"{network.fusion.weighting} weights, placement {network.fusion.placement}"
            reason = "the paper's weights, in the first layer of the Swin branch"
            notes.append(("fusion", value, self._why(reason, "weighting", "placement")))
            levels = "logits of every level of the decoder" if network.fusion.levels else "off"
            reason = "with the gradient's channel, 4.5 points of Dice on phantoms and 3.5 on real MR"
            notes.append(("fusion_levels", levels, self._why(reason, "levels")))
        return notes

    def _why(self, otherwise: str, *options: str) -> str:
        """Return that the user has set one of these options, or else the other reason."""
        usual = default_request(self.request.network)
        changed = any(getattr(self.request, option) != getattr(usual, option) for option in options)
        return "set by the user" if changed else otherwise

    def _kernels(self) -> tuple[tuple[Shape3, ...], str]:
        context = self.context
        return rules.fusion_kernels(context.spacing_mm, self.strides[0][0], context.thicknesses_mm)

    def _fusion(self) -> FusionSettings | None:
        kernels, _ = self._kernels()
        if self.request.weighting == "off" or (len(kernels) == 1 and not self.request.levels):
            return None
        return FusionSettings(
            kernels=kernels,
            weighting=self.request.weighting,
            placement=self.request.placement,
            levels=self.request.levels,
        )

    def _attention(self) -> AttentionKind:
        if self.request.attention == "adaptive":
            return AttentionSettings(
                saliency=self.request.stages,
                temperature=self.request.stages,
                gradient_channel=self.request.gradient_channel,
            )
        return self.request.attention
