"""The frozen relocator, for environments without Python: building it, keeping it, carrying it. See docs/stub.md."""
