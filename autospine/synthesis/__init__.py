"""Images from tissue maps: what each tissue looks like, and what a scanner makes of it."""
