"""AutoSpine: self-configuring 3D spine segmentation in CT and MR."""

__version__ = "0.1.0"
