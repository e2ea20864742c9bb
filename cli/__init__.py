"""The commands of `./dev`; they talk HTTP, so they work against any deployment."""
