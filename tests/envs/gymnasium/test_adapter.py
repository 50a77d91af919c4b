"""The adapter keeps the values of Gymnasium environments in their row, step, episode and type."""

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv

import rmc_envs
from rmc_envs import EnvironmentFailed, GymnasiumEnvs, MazeSpec

SAME, NEXT = AutoresetMode.SAME_STEP, AutoresetMode.NEXT_STEP


class Counter(gymnasium.Env):
    """Its observations and rewards hold seed, episode, step and last action, so that misalignment shows."""

    action_space = spaces.Discrete(9, start=1)
    observation_space = spaces.Box(-1e6, 1e6, (4,), np.float64)

    def __init__(self, reports_success: bool = True) -> None:
        self.episode, self.reports_success = 0, reports_success

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        if seed is not None:
            self.seed, self.episode = seed, 0
        self.episode, self.time = self.episode + 1, 0
        self.length = 2 + (self.seed + self.episode) % 4
        return np.array([self.seed, self.episode, 0, 0], dtype=np.float64), {}

    def step(self, action):
        self.time += 1
        end = self.time == self.length
        obs = np.array([self.seed, self.episode, self.time, action], dtype=np.float64)
        terminated = end and self.episode % 2 == 0
        info = {"is_success": self.episode % 3 == 0} if end and self.reports_success else {}
        return obs, self.episode + self.time / 100, terminated, end and not terminated, info


def adapter(mode: AutoresetMode, kind=SyncVectorEnv, make_env=Counter, num_envs: int = 3) -> GymnasiumEnvs:
    return GymnasiumEnvs(kind([make_env] * num_envs, autoreset_mode=mode), name="Test-v0")


@pytest.mark.parametrize("kind", [SyncVectorEnv, AsyncVectorEnv])
@pytest.mark.parametrize("mode", [SAME, NEXT])
def test_adapter_keeps_every_row_aligned(mode: AutoresetMode, kind) -> None:
    batch = adapter(mode, kind)
    assert batch.action_space == spaces.Discrete(9)
    obs = batch.reset(seed=10)
    assert obs.dtype == torch.float32
    assert obs.tolist() == [[10 + i, 1, 0, 0] for i in range(3)]
    episode, time, ended = [1, 1, 1], [0, 0, 0], [False] * 3
    seen_ends = seen_fillers = 0
    for t in range(60):
        actions = torch.tensor([(t + i) % 9 for i in range(3)])
        step = batch.step(actions)
        for i in range(3):
            if mode is NEXT:
                assert bool(step.valid[i]) != ended[i]
            if ended[i] and mode is NEXT:  # the filler
                seen_fillers += 1
                assert step.obs[i].tolist() == step.final_obs[i].tolist() == [10 + i, episode[i], 0, 0]
                assert step.reward[i] == 0
                assert (bool(step.terminated[i]), bool(step.truncated[i])) == (True, False)
                assert not (step.success is not None and step.success[i])
                ended[i] = False
                continue
            time[i] += 1
            end = time[i] == 2 + (10 + i + episode[i]) % 4
            last = [10 + i, episode[i], time[i], float(actions[i]) + 1]
            assert step.final_obs[i].tolist() == last
            assert step.reward[i] == np.float32(episode[i] + time[i] / 100)
            assert bool(step.terminated[i]) == (end and episode[i] % 2 == 0)
            assert bool(step.truncated[i]) == (end and episode[i] % 2 == 1)
            if end:
                seen_ends += 1
                assert bool(step.success[i]) == (episode[i] % 3 == 0)
                episode[i], time[i], ended[i] = episode[i] + 1, 0, mode is NEXT
            elif step.success is not None:
                assert not step.success[i]
            assert step.obs[i].tolist() == (last if not end or mode is NEXT else [10 + i, episode[i], 0, 0])
        assert (step.valid is None) == (mode is SAME)
    batch.close()
    assert seen_ends > 20
    assert (seen_fillers > 20) == (mode is NEXT)


def test_returned_tensors_do_not_change_later() -> None:
    """Gymnasium may reuse its arrays; the adapter copies them."""
    env = SyncVectorEnv([Counter] * 2, copy=False, autoreset_mode=SAME)
    batch = GymnasiumEnvs(env)
    kept = [batch.reset(seed=0)]
    copies = [kept[0].clone()]
    for _ in range(20):
        step = batch.step(torch.zeros(2, dtype=torch.int64))
        kept += [step.obs, step.final_obs, step.reward, step.terminated]
        copies += [tensor.clone() for tensor in kept[-4:]]
    assert all(torch.equal(a, b) for a, b in zip(kept, copies, strict=True))


def test_success_is_none_if_it_is_not_reported() -> None:
    silent = adapter(SAME, make_env=lambda: Counter(reports_success=False))
    silent.reset(seed=0)
    assert all(silent.step(torch.zeros(3, dtype=torch.int64)).success is None for _ in range(20))


class Spaced(gymnasium.Env):
    """Samples from the given spaces, records the actions that it gets, and ends every third step."""

    def __init__(self, observation_space: spaces.Space, action_space: spaces.Space) -> None:
        self.observation_space, self.action_space = observation_space, action_space
        self.actions: list = []
        self.time = 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.observation_space.seed(seed)
        self.time = 0
        self.last = self.observation_space.sample()
        return self.last, {}

    def step(self, action):
        assert self.action_space.contains(action), action
        self.actions.append(np.array(action))
        self.time += 1
        self.last = self.observation_space.sample()
        return self.last, 0.0, self.time == 3, False, {}


def spaced(observation_space: spaces.Space, action_space: spaces.Space) -> tuple[GymnasiumEnvs, list[Spaced]]:
    singles = [Spaced(observation_space, action_space) for _ in range(2)]
    vector = SyncVectorEnv([lambda env=env: env for env in singles], autoreset_mode=SAME)
    return GymnasiumEnvs(vector), singles


IMAGE = spaces.Box(0, 255, (3, 3, 1), np.uint8)


@pytest.mark.parametrize(
    ("given", "seen", "dtypes"),
    [
        (IMAGE, IMAGE, {"": torch.uint8}),
        (spaces.Box(-1, 1, (2,), np.float64), spaces.Box(-1, 1, (2,), np.float32), {"": torch.float32}),
        (spaces.Box(0, 9, (2,), np.uint16), spaces.Box(0, 9, (2,), np.int64), {"": torch.int64}),
        (spaces.Discrete(3, start=-1), spaces.Discrete(3), {"": torch.int64}),
        (spaces.MultiDiscrete([2, 5]), spaces.MultiDiscrete([2, 5]), {"": torch.int64}),
        (spaces.MultiBinary(4), spaces.MultiBinary(4), {"": torch.int8}),
        (
            spaces.Dict({"image": IMAGE, "mission": spaces.Text(5), "at": spaces.Discrete(4)}),
            spaces.Dict({"image": IMAGE, "at": spaces.Discrete(4)}),
            {"image": torch.uint8, "at": torch.int64},
        ),
        (
            spaces.Tuple([spaces.Discrete(2), spaces.Dict({"x": IMAGE})]),
            spaces.Dict({"0": spaces.Discrete(2), "1.x": IMAGE}),
            {"0": torch.int64, "1.x": torch.uint8},
        ),
    ],
)
def test_observations_are_converted(given: spaces.Space, seen: spaces.Space, dtypes: dict) -> None:
    batch, singles = spaced(given, spaces.Discrete(2))
    assert batch.observation_space == seen
    obs = batch.reset(seed=0)
    for _ in range(7):
        tensors = obs if isinstance(obs, dict) else {"": obs}
        assert {key: tensor.dtype for key, tensor in tensors.items()} == dtypes
        for i, single in enumerate(singles):
            row = {key: tensor[i].numpy() for key, tensor in tensors.items()}
            assert seen.contains({k: v.astype(v.dtype) for k, v in row.items()} if "" not in row else row[""])
            if given is IMAGE:
                np.testing.assert_array_equal(row[""], single.last)
            if isinstance(given, spaces.Discrete):
                assert row[""] == single.last + 1
            if isinstance(given, spaces.Tuple):
                assert row["0"] == single.last[0]
                np.testing.assert_array_equal(row["1.x"], single.last[1]["x"])
        step = batch.step(torch.zeros(2, dtype=torch.int64))
        obs = step.obs


@pytest.mark.parametrize(
    ("space", "given", "arrives"),
    [
        (spaces.Discrete(3, start=5), torch.tensor([0, 2]), [5, 7]),
        (spaces.MultiDiscrete([2, 3]), torch.tensor([[0, 2], [1, 0]]), [[0, 2], [1, 0]]),
        (spaces.MultiBinary(2), torch.tensor([[0, 1], [1, 1]]), [[0, 1], [1, 1]]),
        (
            spaces.Box(np.array([-1, 0]), np.array([1, np.inf]), dtype=np.float64),
            torch.tensor([[-7.0, -1.0], [0.25, 1e6]]),
            [[-1, 0], [0.25, 1e6]],
        ),
        (spaces.Box(0, 3, (1,), np.int32), torch.tensor([[1.9], [88.0]]), [[2], [3]]),
    ],
)
def test_actions_are_converted(space: spaces.Space, given: torch.Tensor, arrives: list) -> None:
    batch, singles = spaced(IMAGE, space)
    batch.reset(seed=0)
    batch.step(given)
    assert [single.actions[0].tolist() for single in singles] == arrives


@pytest.mark.parametrize(
    ("observation", "action"),
    [
        (spaces.Text(4), spaces.Discrete(2)),
        (spaces.Sequence(IMAGE), spaces.Discrete(2)),
        (spaces.Dict({"mission": spaces.Text(4)}), spaces.Discrete(2)),
        (IMAGE, spaces.Dict({"a": spaces.Discrete(2), "b": spaces.Box(-1, 1, (2,))})),
    ],
)
def test_unsupported_spaces_are_refused(observation: spaces.Space, action: spaces.Space) -> None:
    with pytest.raises(ValueError, match=r"wrap|nothing to observe"):
        spaced(observation, action)


def test_unknown_and_disabled_autoreset_are_refused() -> None:
    with pytest.raises(ValueError, match="SAME_STEP or NEXT_STEP"):
        adapter(AutoresetMode.DISABLED)
    unsaid = SyncVectorEnv([Counter], autoreset_mode=SAME)
    del unsaid.metadata["autoreset_mode"]
    with pytest.raises(ValueError, match="autoreset="):
        GymnasiumEnvs(unsaid)
    assert GymnasiumEnvs(unsaid, autoreset=SAME).reset(seed=1).tolist() == [[1, 1, 0, 0]]


def test_state_is_not_saved() -> None:
    batch = adapter(SAME)
    assert batch.state_dict() is None
    with pytest.raises(RuntimeError, match="Test-v0"):
        batch.load_state_dict({})


def test_step_before_reset_and_wrong_action_shapes_are_refused() -> None:
    batch = adapter(SAME)
    with pytest.raises(RuntimeError, match="reset"):
        batch.step(torch.zeros(3, dtype=torch.int64))
    batch.reset(seed=0)
    for shape in ((2,), (4,), (3, 1)):
        with pytest.raises(ValueError, match=r"Test-v0: actions of shape .*, expected \(3,\)"):
            batch.step(torch.zeros(shape, dtype=torch.int64))


class Faulty(Counter):
    """Fails at the second step of its first episode, if its seed is 11."""

    def __init__(self, fault: str) -> None:
        super().__init__()
        self.fault = fault

    def step(self, action):
        obs, reward, *rest = super().step(action)
        if self.seed == 11 and self.time == 2:
            if self.fault == "raise":
                raise ZeroDivisionError("the wheel came off")
            if self.fault == "observation":
                obs[2] = np.nan
            if self.fault == "reward":
                reward = float("nan")
        return obs, reward, *rest


gymnasium.register("test/Faulty-v0", Faulty, disable_env_checker=True)


@pytest.mark.parametrize("vectorization", ["sync", "async"])
# The asynchronous worker also reports its error as a warning.
@pytest.mark.filterwarnings("ignore:.*ERROR:UserWarning")
@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("raise", r"environment 1 \(test/Faulty-v0\).*step 2.*the wheel came off"),
        (
            "observation",
            r"environment 1 \(test/Faulty-v0\) returned NaN at \[2\] as .*observation.*step 2",
        ),
        ("reward", r"environment 1 \(test/Faulty-v0\) returned NaN as reward.*step 2"),
    ],
)
def test_error_names_the_failing_environment(fault: str, message: str, vectorization: str) -> None:
    batch = rmc_envs.make("test/Faulty-v0", num_envs=2, vectorization=vectorization, fault=fault)
    batch.reset(seed=10)
    actions = torch.zeros(2, dtype=torch.int64)
    batch.step(actions)
    with pytest.raises(EnvironmentFailed, match=message) as caught:
        batch.step(actions)
    if fault == "raise" and vectorization == "sync":
        assert isinstance(caught.value.__cause__, ZeroDivisionError)
    batch.close()


def test_adapted_memory_mazes_equal_the_native_ones() -> None:
    """Spaces, values, success and seeds are equal."""
    for env_id, options in (
        ("MiniGrid-MemoryS7-v0", {}),
        ("MiniGrid-MemoryS15Random-v0", {"view_size": 3, "actions": 3}),
    ):
        native = rmc_envs.make(env_id, num_envs=3, seeding="farama", **options)
        adapted = rmc_envs.make(env_id, num_envs=3, vectorization="sync", **options)
        assert native.observation_space == adapted.observation_space
        assert native.action_space == adapted.action_space
        assert native.tasks == adapted.tasks
        a, b = native.reset(seed=2), adapted.reset(seed=2)
        assert all(torch.equal(a[key], b[key]) for key in a)
        ends = 0
        for t in range(300):
            actions = torch.randint(3, (3,), generator=torch.Generator().manual_seed(t))
            one, other = native.step(actions), adapted.step(actions)
            for x, y in zip(one[1:4], other[1:4], strict=True):
                assert torch.equal(x, y)
            assert torch.equal(one.success, other.success)
            for key in ("image", "direction"):
                assert torch.equal(one.obs[key], other.obs[key])
                assert torch.equal(one.final_obs[key], other.final_obs[key])
            ends += int(one.terminated.sum() + one.truncated.sum())
        adapted.close()
    assert MazeSpec.from_id("MiniGrid-MemoryS15Random-v0") == MazeSpec(15, True)


def test_native_vector_environment_can_be_adapted() -> None:
    vector = gymnasium.make_vec("rmc/Recall-v0", num_envs=2, delay=0)
    batch = GymnasiumEnvs(vector)
    batch.reset(seed=0)
    batch.step(torch.zeros(2, dtype=torch.int64))
    step = batch.step(torch.zeros(2, dtype=torch.int64))
    assert step.terminated.all()
    assert not step.final_obs.any()
    assert torch.equal(step.success, step.reward > 0)
