"""Command line: flags, presets, resuming, and what all scripts in train/ share."""
