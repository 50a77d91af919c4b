"""Run an exported agent without torch and rmc_agents: `python run_onnx.py agent.onnx ENV_ID [EPISODES]`."""

import json
import re
import sys
from typing import Any

import gymnasium
import minigrid  # noqa: F401 - registers its environments
import numpy as np
import onnxruntime

session = onnxruntime.InferenceSession(sys.argv[1])
about = json.loads(session.get_modelmeta().custom_metadata_map["rmc_agents"])
inputs, rng = about["inputs"], np.random.default_rng(0)
env = gymnasium.make(sys.argv[2])
for seed in range(int(sys.argv[3]) if len(sys.argv) > 3 else 10):
    (obs, info), done, total, reward = env.reset(seed=seed), False, 0.0, 0.0
    feed: dict[str, Any] = {}
    feed.update({name: np.zeros((1, *x["shape"]), x["dtype"]) for name, x in inputs.items()})
    feed["episode_start"] = np.array([True])  # the state does not count
    while not done:
        for name, x in inputs.items():
            if name.startswith("obs"):
                part = obs
                for key in x["path"]:
                    part = part[key]
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
