"""Default names that plans and options of the command line share; nothing else is imported for them."""

DEFAULT_NETWORK = "adaptive_swin_unetr"
"""Network that is planned for where none is named."""

DEFAULT_LOSS = "dice_ce"
"""Name of the loss of plans that name none: cross-entropy and Dice."""
