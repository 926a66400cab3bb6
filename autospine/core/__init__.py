"""Types, errors, labels, modality, geometry and colours: what every other room knows."""
