"""The names of vertebrae: which level each one is, by all that is known of it and of its neighbours."""
