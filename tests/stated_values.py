"""Numbers that the manual states, and where the code has them: what a test holds against each other."""

STATED = {
    "metrics.md": {
        "autospine.evaluation.surface": {
            "TOLERANCE_MM": "tolerance of `nsd_1mm`",
            "SHARE_WITHIN": "share of the area within `hd95`",
        },
        "autospine.evaluation.boundary": {"BAND_MM": "depth of the rims"},
        "autospine.evaluation.instances": {
            "LEAST_IOU": "IoU that two instances must exceed",
            "SMALL_MM3": "largest small structure",
        },
        "autospine.evaluation.centroids": {"FARTHEST_MM": "farthest centroid of an identified vertebra"},
    },
    "planning.md": {
        "autospine.system.cards": {
            "CARD_SHARE": "share of a GPU's memory to plan for",
            "NAMED_SHARE": "share of `--memory` to plan for on a GPU",
            "RAM_SHARE": "share of the free RAM to plan for",
        },
        "planners.rules": {
            "ANISOTROPY": "ratio of spacings above which a case is thick-sliced",
            "COARSE_AXIS_PERCENTILE": "percentile of the spacing across thick slices",
            "FAST_MM": "coarsest spacing of `fast`",
            "VOXELS_ACROSS": "fewest voxels across the thinnest class",
            "LOWRES_SHARE": "share of the spine, or of the voxels, above which `lowres` is left out",
            "LOWRES_VOXELS": "voxels of the patch by which the spacing of `lowres` is chosen",
            "LEVELS": "places where the grid may be halved",
            "SPARE": "part of the median case by which a patch may be padded",
            "S_EMPHASIS": "extent along S over the extent across it",
            "THREE_LEVELS_MM": "extent of three lumbar levels along S",
            "CONTEXT_MM": "extent of five lumbar levels along S",
            "REGION_MM": "extent of the thoracic levels along S",
            "VERTEBRA_MM": "width across which a patch grows first",
            "LEVEL_SCALE": "largest zoom where classes are levels",
            "FAST_VOXELS": "most voxels of a `fast` patch",
            "BATCH_SHARE": "largest share of the dataset's voxels in a batch of four",
            "PARAMETERS_PER_SQUARE": "parameters of the network, divided by the square of its width",
            "SHORTEST_EDGE": "shortest edge of the coarsest U-Net level",
            "SHORTEST_LONE_EDGE": "the same where only one axis is still halved",
            "UNET_FEATURES": "channels of `resenc_unet` at full resolution",
            "MOST_FEATURES": "most channels of a U-Net level",
            "RESENC_BLOCKS": "residual blocks per encoder level",
            "TRANSFORMER_LAYERS": "Transformer layers of `unet3d_transformer`",
            "HEAD_CHANNELS": "channels per attention head",
            "STEP": "growth of a patch where any size would do",
            "LARGEST_KERNEL": "largest fusion kernel",
            "BYTES_PER_CHANNEL": "bytes that a step moves, per voxel and channel",
            "OPERATIONS_PER_SQUARE": "operations of a step, per voxel and channel squared",
            "EFFICIENCY": "share of the data sheet's speed that is reached",
            "SHORTEST_STEP": "shortest step on a GPU",
            "SEEN_VOXELS": "most voxels that a training sees",
            "PASSES": "most times that it sees the dataset",
            "LEAST_STEPS": "fewest steps for a small dataset",
            "MOST_HOURS": "longest estimated training of a fold",
            "BALANCE": "weight of cross-entropy before the shift",
            "FREE_DECADES": "ratio of class volumes, as a power of ten, from which the weight falls",
            "DECADE_SHIFT": "fall of the weight per further power of ten",
            "LEAST_LAMBDA": "smallest weight of cross-entropy",
            "WANTED_FOREGROUND": "share of patches that should show a structure",
            "LEAST_OVERSAMPLING": "smallest share of patches centred on a structure",
        },
        "planners.rules.CPU": {
            "widths": "network widths on a CPU",
            "batches": "batch size on a CPU",
            "largest_window": "largest window edge on a CPU",
            "epochs": "epochs on a CPU",
            "iterations_per_epoch": "steps per epoch on a CPU",
            "learning_rate": "relative learning rate on a CPU",
            "spatial_probability": "probability of spatial augmentation on a CPU",
        },
        "planners.rules.GPU": {
            "widths": "network widths on a GPU",
            "patch_voxels": "most voxels of a patch on a GPU",
            "batches": "batch sizes on a GPU",
            "largest_window": "largest window edge on a GPU",
            "epochs": "epochs on a GPU",
            "iterations_per_epoch": "steps per epoch on a GPU",
            "learning_rate": "relative learning rate on a GPU",
            "spatial_probability": "probability of spatial augmentation on a GPU",
        },
        "autospine.preprocessing.normalise": {
            "BACKGROUND_FRACTION": "share of an MR image's intensity range that counts as air",
        },
        "autospine.memory.loss_memory": {
            "LOSS_PIECE_BYTES": "loss, per voxel and class of a piece",
            "IGNORED_BYTES": "loss, per voxel",
            "CPU_PIECE": "scores of a piece on a CPU",
            "OTHER_LOSS_BYTES": "a loss of another distribution, per voxel and class",
            "OTHER_LOSS_BYTES_PER_VOXEL": "a loss of another distribution, per voxel",
            "OTHER_LOSS_GRADIENT_BYTES": "gradient of such a loss, per voxel and class",
        },
        "autospine.memory.estimate": {
            "TILE_SCORE_BYTES": "scores of a tile in inference, per voxel and class",
        },
        "autospine.memory.swin_layout": {
            "RESIDUAL_MAPS": "maps that a residual block keeps",
            "SHORTCUT_MAPS": "more of them where channels change",
            "UPSAMPLED_MAPS": "more of them in a decoder that up-samples before it convolves",
            "MERGING_MAPS": "maps that a patch merging keeps",
            "PERCEPTRON_MAPS": "maps that a perceptron keeps",
            "BACKWARD_MAPS": "maps that the backward pass of the finest decoder needs",
        },
        "autospine.memory.estimate.CPU_SWIN": {
            "base": "Swin UNETR on a CPU: `base`",
            "per_parameter": "Swin UNETR on a CPU: `per_parameter`",
            "share": "Swin UNETR on a CPU: `share`",
        },
        "autospine.memory.estimate.CPU_TRACED": {
            "base": "other networks on a CPU: `base`",
            "share": "other networks on a CPU: `share`",
        },
        "autospine.memory.estimate.CPU_SWIN_INFERENCE": {
            "base": "inference with Swin UNETR on a CPU: `base`",
            "share": "inference with Swin UNETR on a CPU: `share`",
        },
        "autospine.memory.estimate.CPU_TRACED_INFERENCE": {
            "base": "inference with other networks on a CPU: `base`",
        },
        "autospine.memory.estimate.GPU": {
            "base": "any network on a GPU: `base`",
            "share": "any network on a GPU: `share`",
        },
    },
    "monitors.md": {
        "trainers.monitors.failures": {
            "SAMPLE_EVERY": "interval between samples",
            "SAMPLES": "samples in the running window",
            "LEAST_FOREGROUND": "smallest foreground ratio",
            "MOST_FOREGROUND": "largest foreground ratio",
            "LARGEST_KERNEL_RATIO": "largest kernel ratio",
            "LEAST_DICE_RATIO": "smallest Dice ratio",
            "LARGEST_BORDER_SHIFT": "largest border shift",
            "INERT": "smallest change of a mechanism that is in use",
        },
        "trainers.monitors.counts": {
            "REACH": "distance from the border that is counted",
        },
    },
    "training.md": {
        "autospine.data.spatial": {
            "CONTROL_MM": "distance of the elastic control points",
        },
        "planners.rules.recipe": {
            "WINDOW_PROBABILITY": "CT: probability of another window",
            "WINDOW_SHIFT": "CT: shift of each window bound",
            "METAL_PROBABILITY": "CT: probability of metal",
            "METAL_HU": "CT: strength of metal streaks",
            "BIAS_PROBABILITY": "MR: probability of a bias field",
            "BIAS_STD": "MR: standard deviation of the bias field's logarithm",
        },
        "autospine.data.artefacts": {
            "BIAS_MM": "MR: distance of the bias field's control points",
            "STREAK_MM": "CT: length over which metal streaks fall to 1/e",
        },
        "autospine.preprocessing.store": {
            "LOCATIONS_PER_LABEL": "stored voxels per label and case",
        },
        "trainers.supervision": {
            "HEADS": "auxiliary heads of deep supervision",
        },
        "trainers.label_targets": {
            "SMOOTH": "smoothing term of Dice",
        },
        "trainers.optimizer": {
            "BETAS": "AdamW's betas",
            "SMALLEST_SCALE": "smallest learning-rate scale of a tensor",
            "LARGEST_SCALE": "largest learning-rate scale of a tensor",
        },
        "trainers.learner": {
            "AVERAGED_SHARE": "share of the past steps in the weight average",
        },
        "trainers.schedule": {
            "FINAL": "learning rate at the end, as a share of the peak",
            "SPARE": "share of the remaining time that is kept in reserve",
        },
        "trainers.epoch_validation": {
            "SHARE_OF_PATCHES": "tiles predicted after an epoch, as a share of its patches",
            "FEWEST_TILES": "tiles that the held-out Dice is computed from, at least",
            "FOREGROUND_SHARE": "share of these tiles that hold a class",
        },
        "trainers.early_stopping": {
            "LEAST_RISE": "smallest rise of the held-out Dice that counts",
            "COOLDOWN_SHARE": "epochs of the cooldown, as a share of those before",
        },
        "trainers.fold_validation": {
            "SECONDS_PER_CASE": "time for reading and writing a held-out case",
        },
    },
    "measurements.md": {
        "autospine.measurements.fracture_grades": {
            "GENANT_LOSS": "losses of height from which a fracture has grade 1, 2 and 3",
            "FARTHEST": "farthest neighbour of a graded body, levels",
            "GROWTH": "height of a body over that of the one above, T4 to L2",
        },
        "autospine.measurements.body_lengths": {
            "EDGE": "place of the outer heights, in parts of the depth",
        },
        "autospine.measurements.spine_angles": {
            "LEAST_FOR_COBB": "fewest vertebrae of a coronal curve",
            "SCOLIOSIS_DEG": "coronal Cobb angle from which a curve is a scoliosis",
            "LEAST_SIDE_DEG": "coronal Cobb angle from which its side is named",
        },
        "autospine.measurements.canal_size": {
            "PLAUSIBLE_DEPTH_MM": "depths of a canal without a doubt",
        },
        "autospine.measurements.measure_spine": {
            "COARSE_MM": "voxel edge above which heights are rough",
        },
        "autospine.measurements.disc_space": {
            "FUSED": "share of an endplate that touches the next one from which both count as fused",
        },
        "autospine.measurements.measured_bodies": {
            "DEEPEST": "depth over width above which a label runs into the canal, to T9",
            "DEEPEST_BELOW_T9": "the same from T10 on",
        },
    },
    "postprocessing.md": {
        "autospine.evaluation.cleanup_choice": {
            "VOLUMES_MM3": "smallest volumes to keep that are tried",
            "LEAST_GAIN": "smallest gain of the mean Dice",
            "STANDARD_ERRORS": "smallest gain in standard errors",
            "WORST_LOSS": "largest loss of Dice of a single case",
            "WORST_FOREGROUND_LOSS": "largest loss of the foreground in a single case",
            "FEWEST_CASES": "fewest cases",
            "RIVAL_SHARE": "least share of the largest component that is kept beside it",
            "MOST_TO_BACKGROUND_MM3": "largest component that becomes background",
        },
        "autospine.evaluation.components": {
            "PIECE_CELL_MM": "edge of the cells that pieces touch in",
            "STRAY_SHARE": "least share of the largest piece that is no stray",
            "BESIDE": "share of a piece's height beside the largest piece",
        },
    },
    "fingerprint.md": {
        "autospine.core.geometry": {
            "FINEST_MM": "finest voxel that is accepted",
            "COARSEST_MM": "coarsest voxel that is accepted",
        },
        "autospine.fingerprint.case": {
            "SAMPLES_PER_CASE": "sampled foreground voxels per case",
        },
        "autospine.fingerprint.thickness": {
            "LATTICE_POINTS": "lattice points per case",
        },
        "autospine.fingerprint.duplicates": {
            "SIDE": "edge of a thumbnail",
            "ALIKE": "correlation from which two thumbnails show one image",
            "SAME_SIZE": "largest difference between the fields of view",
        },
        "autospine.fingerprint.measurement": {
            "MOST_AT_ONCE": "cases measured at once by default",
        },
    },
    "network.md": {
        "autospine.network.AttentionBounds": {
            "saliency": "bound c of the saliency",
            "temperature": "bound c' of the logarithm of the temperature",
            "gradient_sigma_mm": "Gaussian before the gradient",
        },
        "autospine.network.swin.windows": {
            "MASKED_LOGIT": "logit of a masked pair of tokens",
        },
    },
    "inference.md": {
        "autospine.inference.tiles": {
            "TILE_STEP_SIZE": "tile step size",
            "SIGMA": "standard deviation of the Gaussian weight",
            "FLOOR": "smallest Gaussian weight",
            "NEGLIGIBLE": "weight, relative to the neighbouring tile, below which a tile's edge is left out",
            "LOCALIZER_STEP_SIZE": "tile step size of the localizer",
        },
        "autospine.inference.to_native": {
            "THRESHOLD": "probability above which a region is predicted",
        },
        "autospine.inference.case_memory": {
            "SLAB_SHARE": "share of a GPU's free memory for the slab",
        },
        "autospine.inference.tile_batch": {
            "WORTH": "time per tile below which a larger tile batch is kept",
            "LARGEST": "largest tile batch",
        },
        "autospine.inference.region_of_interest": {
            "AIR_HU": "CT: upper limit of air",
            "MARGIN_MM": "margin around the located spine (S, P, L)",
            "WIDE_MM": "smallest extent along P or L of an image in which the starter locates the spine",
            "COLUMN_MARGIN_MM": "margin around the column that the starter finds (S, P, L)",
            "LEAST_ROWS": "least share of the body's rows with vertebra and canal of the starter",
            "SMALL_COMPONENT": "smallest component of the localizer's labels, as a share of all of them",
            "STRIDE": "edge of the blocks for which the mask of the body has one value",
        },
        "autospine.inference.predictor": {
            "SURE": "probability of background above which the networks find nothing in a tile of air",
        },
        "autospine.preprocessing.normalise": {
            "BACKGROUND_FRACTION": "MR: share of the intensity range that counts as air",
        },
        "autospine.models.model_folder": {
            "FINER": "fewest voxels of the fine model in one voxel of the localizer",
            "TRUSTED_DICE": "smallest cross-validated Dice of a localizer",
        },
        "autospine.prediction.probabilities": {
            "STEPS": "steps from probability 0 to 1",
            "CHUNK_BYTES": "largest chunk of the file",
        },
    },
}
"""By page of docs/concepts/ and by module or class: each constant or default, with its row's first cell."""
