"""Reinforcement learning: rollouts, PPO, curriculum, and the trainer."""
