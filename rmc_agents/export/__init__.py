"""Agents as single files that run without this package, and as small folders to share.

- `export_agent_file` writes one step of an agent as ONNX, or as a program of `torch.export`.
- `export_policy` does so with a policy that Stable-Baselines3 has trained.
- `save_pretrained` writes an agent as weights, configuration and model card; `rmc_agents.load` reads it.
"""
