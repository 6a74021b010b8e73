"""A TorchScript file becomes a version of a model."""
