"""Checker for the contract of batched environments; its entry point is `rmc_envs.check`."""
