"""Our memories in Stable-Baselines3, whose algorithms stay as they are.

`RecurrentPPO(RMCPolicy, env)` of sb3-contrib learns with a relational memory, or any other core of
`rmc_agents.cores`; `BatchedVecEnv` gives SB3's algorithms our batched environments.
"""

from rmc_agents.sb3 import text
from rmc_agents.sb3.exchange import policy_kwargs_for
from rmc_agents.sb3.features import EncoderExtractor
from rmc_agents.sb3.policy import RMCCnnPolicy, RMCMultiInputPolicy, RMCPolicy
from rmc_agents.sb3.vec_env import BatchedVecEnv

text.let_sb3_leave_text_out()

__all__ = [
    "BatchedVecEnv",
    "EncoderExtractor",
    "RMCCnnPolicy",
    "RMCMultiInputPolicy",
    "RMCPolicy",
    "policy_kwargs_for",
]
