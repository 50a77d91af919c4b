"""Run an exported agent without torch and rmc_agents: `python run_onnx.py agent.onnx ENV_ID [EPISODES]`."""

import json
import re
import sys
from typing import Any

import gymnasium
import minigrid  # noqa: F401 - registers its environments
import numpy as np
import onnxruntime


def part_of(tree: Any, path: list[Any]) -> Any:
    """Return a part of an observation, or of its space."""
    for key in path:
        tree = tree[key]
    return tree


try:
    path, env_id, number = [*sys.argv[1:], "10"][:3] if len(sys.argv) < 5 else []
    seeds = range(int(number))
    seeds[0]  # raises if there is none
except (ValueError, IndexError):
    sys.exit(str(__doc__))
try:
    session = onnxruntime.InferenceSession(path)
    about = json.loads(session.get_modelmeta().custom_metadata_map["rmc_agents"])
    env = gymnasium.make(env_id)
except KeyError:
    sys.exit(f"{path} was not exported by rmc_agents: see train/export.py")
except Exception as error:  # of the file, or of the environment
    sys.exit(f"{path} cannot be run in {env_id}: {str(error).splitlines()[0]}")
inputs, rng = about["inputs"], np.random.default_rng(0)
observed = {name: x for name, x in inputs.items() if name.startswith("obs")}
try:
    own = [(part_of(env.observation_space, x["path"]).shape, x) for x in observed.values()]
    fits = all("words" in x or shape == tuple(x["shape"]) for shape, x in own)
except (KeyError, IndexError, TypeError):
    fits = False
if not fits:
    sys.exit(f"{path} reads other observations than {env_id} gives: {env.observation_space}")
for seed in seeds:
    (obs, info), done, total, reward = env.reset(seed=seed), False, 0.0, 0.0
    feed: dict[str, Any] = {}
    feed.update({name: np.zeros((1, *x["shape"]), x["dtype"]) for name, x in inputs.items()})
    feed["episode_start"] = np.array([True])  # the state does not count
    while not done:
        for name, x in observed.items():
            part = part_of(obs, x["path"])
            if "words" in x:  # a text: the ids of its words
                known = {word: 2 + i for i, word in enumerate(x["words"])}
                ids = [known.get(word, 1) for word in re.findall(r"\w+", part.lower())]
                part = [*ids, *[0] * x["shape"][0]][: x["shape"][0]]
            feed[name] = np.asarray(part, x["dtype"])[None]
        if "reward" in inputs:
            feed["reward"] = np.array([reward], np.float32)
        if "action_mask" in inputs:  # what the environment allows
            mask = info["action_mask"] if "action_mask" in info else env.get_wrapper_attr("action_masks")()
            feed["action_mask"] = np.hstack(mask).astype(bool)[None]
        if "noise" in inputs:  # actions are drawn
            feed["noise"] = getattr(rng, about["noise"])(size=(1, *inputs["noise"]["shape"])).astype("f4")
        outputs: list[Any] = list(session.run(None, feed))
        results = dict(zip([x.name for x in session.get_outputs()], outputs, strict=True))
        feed.update({name: results[f"next_{name}"] for name in inputs if name.startswith("state.")})
        feed["episode_start"] = np.array([False])
        obs, reward, terminated, truncated, info = env.step(results["action"][0])
        done, total = terminated or truncated, total + float(reward)
    print(f"episode {seed}: return {total:.3f}", flush=True)
