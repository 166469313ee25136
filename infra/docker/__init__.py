"""The container image, and everything on one machine with compose."""
