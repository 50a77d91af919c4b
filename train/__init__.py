"""The scripts: `python train/ppo.py` in a checkout, `rmc-train` and its siblings once installed."""
