"""Images and label maps as files or in memory, with their geometry."""
