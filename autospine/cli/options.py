"""Options that several commands share, each described once."""

from pathlib import Path
from typing import Annotated

import typer

Workspace = Annotated[
    Path | None,
    typer.Option(
        "--workspace",
        "-w",
        help="Folder with raw/, preprocessed/, results/; by default $AUTOSPINE_WORKSPACE, else this one.",
        show_default=False,
    ),
]
DatasetName = Annotated[
    str,
    typer.Option("--dataset", "-d", help="Dataset by number (1), short name (Dataset001) or whole name."),
]
OptionalDataset = Annotated[
    str | None,
    typer.Option(
        "--dataset",
        "-d",
        help="Dataset by number (1), short name (Dataset001) or whole name; by default the last one planned.",
        show_default=False,
    ),
]
Memory = Annotated[
    str | None,
    typer.Option(
        "--memory",
        help="Memory that training may take, such as 8GB; by default the GPU's, else half of the free RAM.",
        show_default=False,
    ),
]
Memories = Annotated[
    list[str] | None,
    typer.Option(
        "--memory",
        metavar="SIZE",
        help="Memory that training may take, such as 8GB; by default the GPU's, else half of the free RAM. "
        "Several show the plans for each, without writing any.",
        show_default=False,
    ),
]
OverridesFile = Annotated[
    Path | None,
    typer.Option(
        "--overrides",
        help="YAML file of wishes, such as `patch_size: [96, 96, 64]`; options given here count more.",
        show_default=False,
    ),
]
V2Blocks = Annotated[
    bool | None,
    typer.Option(
        "--v2-blocks/--no-v2-blocks",
        help="Convolution block before each stage of Swin networks, as in SwinUNETR-V2; on by default. "
        "MONAI's default weights are of networks without.",
        show_default=False,
    ),
]
Spacing = Annotated[
    tuple[float, float, float] | None,
    typer.Option(
        "--spacing", help="Voxel size of `fullres` in mm along S P L.", metavar="S P L", show_default=False
    ),
]
Patch = Annotated[
    tuple[int, int, int] | None,
    typer.Option("--patch", help="Patch size in voxels along S P L.", metavar="S P L", show_default=False),
]
FeatureSize = Annotated[
    int | None,
    typer.Option(
        "--feature-size", help="Channels at full resolution, a multiple of 4, 8 to 96.", show_default=False
    ),
]
Networks = Annotated[
    list[str] | None,
    typer.Option(
        "--network",
        metavar="NAME",
        help="Network to plan for; may be repeated; by default adaptive_swin_unetr. A wrong one lists all.",
        show_default=False,
    ),
]
Attention = Annotated[
    list[str] | None,
    typer.Option(
        "--attention",
        metavar="KIND",
        help="Of Swin networks: adaptive, plain or identity (none, as a control); may be repeated.",
        show_default=False,
    ),
]
AdaptiveStages = Annotated[
    str | None,
    typer.Option(
        "--adaptive-stages",
        help="Stages with adaptive attention, such as 1,2 (the default) or 1,2,3,4.",
        show_default=False,
    ),
]
FusionWeighting = Annotated[
    list[str] | None,
    typer.Option(
        "--fusion-weighting",
        metavar="KIND",
        help="Weights of the multi-scale fusion: trainable, ones or off (no fusion); may be repeated.",
        show_default=False,
    ),
]
FusionPlacement = Annotated[
    list[str] | None,
    typer.Option(
        "--fusion-placement",
        metavar="PLACE",
        help="Where scales are fused: embedding, stem or both; may be repeated.",
        show_default=False,
    ),
]
Checkpointing = Annotated[
    bool | None,
    typer.Option(
        "--checkpointing/--no-checkpointing",
        help="Recompute stages in the backward pass: larger patches in the same memory, slower steps.",
        show_default=False,
    ),
]
Workers = Annotated[
    int | None,
    typer.Option(
        "--workers", "-j", min=1, help="Processes; by default one per core, at most 8.", show_default=False
    ),
]
Configurations = Annotated[
    list[str] | None,
    typer.Option(
        "--configuration",
        "-c",
        metavar="NAME",
        help="Configuration by index or name; may be repeated; by default 0, the recommended one.",
        show_default=False,
    ),
]
Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda or cuda:N.")]
