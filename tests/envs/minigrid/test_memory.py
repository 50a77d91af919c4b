"""The native mazes equal Farama's bit for bit; mixtures, device seeding and assignment work."""

import io
from collections import Counter

import gymnasium
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from minigrid.envs import MemoryEnv

import rmc_envs
from rmc_envs import MazeSpec, MemoryMazes
from rmc_envs.minigrid.memory import Seeding
from rmc_envs.minigrid.starts import FaramaStarts
from rmc_envs.minigrid.tables import build_tables, visible

CLOSE_TO_RANDOM = [0.15, 0.15, 0.6, 0.025, 0.025, 0.025, 0.025]  # it reaches the choices


def make_reference(spec: MazeSpec) -> MemoryEnv:
    return MemoryEnv(size=spec.size, random_length=spec.random_length, agent_view_size=spec.view_size)


def assert_same_obs(theirs: dict, ours: dict[str, torch.Tensor], i: int) -> None:
    np.testing.assert_array_equal(theirs["image"], ours["image"][i].numpy())
    assert theirs["direction"] == int(ours["direction"][i])


def follow(spec: MazeSpec, seed: int, steps: int, num_envs: int = 2) -> tuple[int, int, int]:
    """Step ours and Farama's side by side; return the numbers of solved, failed and truncated episodes."""
    singles = [make_reference(spec) for _ in range(num_envs)]
    ours = MemoryMazes(spec, num_envs, seeding="farama")
    obs = ours.reset(seed)
    for i, single in enumerate(singles):
        assert_same_obs(single.reset(seed=seed + i)[0], obs, i)
    all_actions = np.random.default_rng(seed).choice(7, (steps, num_envs), p=CLOSE_TO_RANDOM)
    solved = failed = truncations = 0
    for actions in all_actions:
        step = ours.step(torch.from_numpy(actions))
        assert step.reward.dtype == torch.float32
        for i, single in enumerate(singles):
            theirs, reward, terminated, truncated, _ = single.step(actions[i])
            assert_same_obs(theirs, step.final_obs, i)
            assert np.float32(reward) == step.reward[i].numpy()
            assert (terminated, truncated) == (bool(step.terminated[i]), bool(step.truncated[i]))
            assert bool(step.success[i]) == (reward > 0)
            if terminated or truncated:
                theirs, _ = single.reset()
            assert_same_obs(theirs, step.obs, i)
            solved += reward > 0
            failed += terminated and reward == 0
            truncations += truncated
    return solved, failed, truncations


@pytest.mark.parametrize("view_size", [3, 5, 7])
@pytest.mark.parametrize("env_id", rmc_envs.MEMORY_MAZES)
def test_maze_equals_faramas(env_id: str, view_size: int) -> None:
    spec = MazeSpec.from_id(env_id, view_size)
    assert spec is not None
    ends = np.array([follow(spec, seed, steps) for seed, steps in ((0, 900), (1234, 300))]).sum(0)
    assert ends[0] > 0  # rewards were compared
    assert ends.sum() > 3  # autoresets were compared


def test_maze_equals_faramas_over_every_kind_of_end() -> None:
    assert all(count > 0 for count in follow(MazeSpec(7), seed=7, steps=4000, num_envs=1))


@pytest.mark.parametrize("spec", [MazeSpec(5), MazeSpec(17), MazeSpec(25), MazeSpec(21, random_length=True)])
def test_unregistered_size_equals_faramas(spec: MazeSpec) -> None:
    follow(spec, seed=3, steps=500)


@settings(max_examples=15, deadline=None)
@given(
    size=st.integers(3, 10).map(lambda n: 2 * n + 1),
    random_length=st.booleans(),
    view_size=st.sampled_from([3, 5, 7, 9]),
    seed=st.integers(0, 2**31),
)
def test_any_maze_equals_faramas(size: int, random_length: bool, view_size: int, seed: int) -> None:
    follow(MazeSpec(size, random_length, view_size=view_size), seed, steps=60)


@settings(max_examples=40, deadline=None)
@given(opaque=st.lists(st.booleans(), min_size=49, max_size=49))
def test_visibility_equals_minigrids_behind_any_walls(opaque: list[bool]) -> None:
    from minigrid.core.grid import Grid
    from minigrid.core.world_object import Wall

    walls = np.array(opaque).reshape(7, 7)
    grid = Grid(7, 7)
    for i, j in np.argwhere(walls).tolist():
        grid.set(i, j, Wall())
    np.testing.assert_array_equal(visible(walls[None])[0], grid.process_vis((3, 6)))


def test_success_in_the_last_step_is_also_truncated() -> None:
    mazes = MemoryMazes(MazeSpec(5), 64)
    mazes.reset(0)
    turn_left, forward, done = (torch.full((64,), action) for action in (0, 2, 6))
    for _ in range(120):  # 30 times around
        assert not mazes.step(turn_left).truncated.any()
    for actions in (forward, forward, turn_left, done):  # to the junction from either start, and look up
        step = mazes.step(actions)
        assert not step.done.any()
    step = mazes.step(forward)
    assert step.truncated.all()
    assert step.terminated.all()
    assert 16 < int(step.success.sum()) < 48  # up is right in half of the layouts
    assert step.reward.tolist() == [float(np.float32(1 - 0.9)) if right else 0.0 for right in step.success]


def test_best_possible_equals_known_values() -> None:
    known = {
        "S7": ("6.0", "0.978"),
        "S9": ("7.2", "0.984"),
        "S11": ("9.5", "0.986"),
        "S13": ("11.7", "0.988"),
        "S13Random": ("8.6", "0.991"),
        "S17Random": ("10.9", "0.993"),
    }
    for name, figures in known.items():
        spec = MazeSpec.from_id(f"MiniGrid-Memory{name}-v0")
        assert spec is not None
        steps, reward = rmc_envs.best_possible(spec)
        assert (f"{steps:.1f}", f"{reward:.3f}") == figures


def test_best_possible_needs_more_steps_with_a_smaller_view() -> None:
    for env_id in rmc_envs.MEMORY_MAZES:
        wide, narrow = (MazeSpec.from_id(env_id, view_size) for view_size in (7, 3))
        assert wide is not None
        assert narrow is not None
        assert rmc_envs.best_possible(narrow)[0] > rmc_envs.best_possible(wide)[0]


def test_mixture_equals_its_parts() -> None:
    specs = [MazeSpec(7), MazeSpec(13, random_length=True), MazeSpec(9), MazeSpec(9, hallway=4)]
    mixed = MemoryMazes(specs, 10, seeding="farama")
    assert mixed.tasks == tuple(spec.env_id for spec in specs)
    assert mixed.task_of.tolist() == [0, 1, 2, 3, 0, 1, 2, 3, 0, 1]
    # Environment i of the batch equals a batch of one with the same seed.
    parts = [MemoryMazes(specs[i % 4], 1, seeding="farama") for i in range(10)]
    obs = mixed.reset(5)
    for i, part in enumerate(parts):
        assert torch.equal(part.reset(5 + i)["image"][0], obs["image"][i])
    generator = torch.Generator().manual_seed(0)
    ends = torch.zeros(10)
    weights = torch.tensor(CLOSE_TO_RANDOM)
    for _ in range(700):
        actions = torch.multinomial(weights, 10, replacement=True, generator=generator)
        step = mixed.step(actions)
        for i, part in enumerate(parts):
            alone = part.step(actions[i : i + 1])
            for whole, own in zip(step[1:4], alone[1:4], strict=True):
                assert whole[i] == own[0]
            for key in ("image", "direction"):
                assert torch.equal(step.obs[key][i], alone.obs[key][0])
                assert torch.equal(step.final_obs[key][i], alone.final_obs[key][0])
        ends += step.done
    assert ends.min() > 0


def test_repeated_maze_gets_more_environments() -> None:
    mazes = MemoryMazes([MazeSpec(9), MazeSpec(7), MazeSpec(9)], 6)
    assert mazes.tasks == ("MiniGrid-MemoryS9-v0", "MiniGrid-MemoryS7-v0")
    assert mazes.task_of.tolist() == [0, 1, 0, 0, 1, 0]


def test_device_seeding_draws_starts_as_often_as_faramas() -> None:
    """A chi-square test of the counts of start states against Farama's probabilities, with a fixed seed."""
    spec = MazeSpec(13, random_length=True)
    mazes = MemoryMazes([spec, MazeSpec(7)], 4000)
    counts: Counter[int] = Counter()
    for seed in range(8):
        mazes.reset(seed)
        states = mazes.state_dict()["state"][0::2].tolist()  # the first maze's environments
        counts.update(states)
    draws = sum(counts.values())
    places = {state: mazes.tables.place[state].tolist() for state in counts}
    assert len(counts) == sum(4 * end for end in range(4, 11))  # every hallway, start, cue and order
    chi_square = 0.0
    for state, (maze, end, _, _, x, y) in places.items():
        assert (maze, y) == (0, 6)
        assert 1 <= x <= end
        expected = draws / 7 / (4 * end)
        chi_square += (counts[state] - expected) ** 2 / expected
    freedom = len(counts) - 1
    assert abs(chi_square - freedom) < 4 * (2 * freedom) ** 0.5


def test_device_seeding_draws_starts_at_autoreset_with_the_same_probabilities() -> None:
    mazes = MemoryMazes(MazeSpec(7), 256)
    mazes.reset(0)
    generator = torch.Generator().manual_seed(1)
    weights = torch.tensor(CLOSE_TO_RANDOM)
    starts: Counter[int] = Counter()
    for _ in range(200):
        step = mazes.step(torch.multinomial(weights, 256, replacement=True, generator=generator))
        starts.update(mazes.state_dict()["state"][step.done].tolist())
    assert len(starts) == 16
    expected = sum(starts.values()) / 16
    assert expected > 30
    assert sum((n - expected) ** 2 / expected for n in starts.values()) < 15 + 4 * 30**0.5


def test_device_and_farama_seeding_differ_only_in_their_starts() -> None:
    """Both kinds of seeding step equally from the same state."""
    device, exact = (MemoryMazes(MazeSpec(9), 8, seeding=seeding) for seeding in ("device", "farama"))
    device.reset(0)
    exact.reset(0)
    saved = exact.state_dict()
    start = device.state_dict()
    exact.load_state_dict({**saved, "state": start["state"], "clock": start["clock"]})
    going = torch.ones(8, dtype=torch.bool)
    generator = torch.Generator().manual_seed(0)
    for _ in range(100):
        actions = torch.randint(7, (8,), generator=generator)
        a, b = device.step(actions), exact.step(actions)
        assert torch.equal(a.final_obs["image"][going], b.final_obs["image"][going])
        assert torch.equal(a.reward[going], b.reward[going])
        going &= ~a.done


def test_returned_tensors_do_not_change_later() -> None:
    mazes = MemoryMazes(MazeSpec(7), 8)
    kept = [mazes.reset(0)["image"]]
    copies = [kept[0].clone()]
    for _ in range(300):
        step = mazes.step(torch.randint(7, (8,), generator=torch.Generator().manual_seed(len(kept))))
        for tensor in (
            step.obs["image"],
            step.final_obs["image"],
            step.reward,
            step.terminated,
            step.success,
        ):
            kept.append(tensor)
            copies.append(tensor.clone())
    assert all(torch.equal(a, b) for a, b in zip(kept, copies, strict=True))


def test_state_of_numpys_generators_survives_a_safe_load() -> None:
    """They hold 128-bit numbers and half-used words."""
    mazes = MemoryMazes(MazeSpec(7, random_length=True), 3, seeding="farama")
    assert isinstance(mazes._starts, FaramaStarts)
    mazes.reset(2**40)
    buffer = io.BytesIO()
    torch.save(mazes.state_dict(), buffer)
    buffer.seek(0)
    saved = torch.load(buffer, weights_only=True)["numpy"]
    assert saved == [rng.bit_generator.state for rng in mazes._starts.generators]


def test_three_actions_equal_the_first_three_of_seven() -> None:
    three, seven = (MemoryMazes(MazeSpec(11), 4, actions=n, seeding="farama") for n in (3, 7))
    assert three.action_space == gymnasium.spaces.Discrete(3)
    assert seven.action_space == gymnasium.spaces.Discrete(7)
    three.reset(0)
    seven.reset(0)
    for t in range(200):
        actions = torch.randint(3, (4,), generator=torch.Generator().manual_seed(t))
        assert torch.equal(three.step(actions).obs["image"], seven.step(actions).obs["image"])


@pytest.mark.parametrize("actions", [3, 7])
def test_action_outside_the_space_raises(actions: int) -> None:
    mazes = MemoryMazes(MazeSpec(7), 2, actions=actions)
    mazes.reset(0)
    with pytest.raises(IndexError):
        mazes.step(torch.tensor([0, actions]))
    with pytest.raises(ValueError, match="shape"):
        mazes.step(torch.tensor([0]))


@pytest.mark.parametrize(
    ("build_it", "message"),
    [
        (lambda: MazeSpec(8), "size 8.*odd.*choose 9"),
        (lambda: MazeSpec(3), "size 3.*choose 5"),
        (lambda: MazeSpec(5, random_length=True), "size 5.*choose 7"),
        (lambda: MazeSpec(9, view_size=4), "view_size 4"),
        (lambda: MazeSpec(9, hallway=3), "hallway 3.*from 4 to 6"),
        (lambda: MazeSpec(9, random_length=True, hallway=4), "one of them"),
        (lambda: MemoryMazes([MazeSpec(9), MazeSpec(9, view_size=3)], 2), r"view sizes \[3, 7\]"),
        (lambda: MemoryMazes([MazeSpec(9), MazeSpec(7)], 1), "num_envs=1 for 2 mazes"),
        (lambda: MemoryMazes(MazeSpec(9), 1, actions=4), "actions=4"),
        (lambda: MemoryMazes(MazeSpec(9), 1, seeding="numpy"), "seeding='numpy'"),
        (lambda: MemoryMazes([], 1), "no mazes"),
    ],
)
def test_invalid_arguments_are_refused(build_it, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_it()


def test_clean_mazes_never_show_cue_and_choice_together() -> None:
    """In the mazes that the docstring calls clean tests, no single observation shows both."""
    clean = set()
    for env_id in rmc_envs.MEMORY_MAZES:
        for view_size in (3, 7):
            spec = MazeSpec.from_id(env_id, view_size)
            assert spec is not None
            tables = build_tables((spec,), 3)
            objects = (tables.image[..., 0] >= 5).sum(axis=(1, 2))
            if not (tables.cue_seen & (objects > 1)).any():
                clean.add((env_id.split("Memory")[1][:-3], view_size))
    assert clean == {(n, 3) for n in ("S7", "S9", "S11", "S13", "S13Random", "S17Random")} | {
        ("S11", 7),
        ("S13", 7),
    }


def test_picture_equals_minigrids_up_to_the_last_step() -> None:
    single, ours = make_reference(MazeSpec(9)), MemoryMazes(MazeSpec(9), 1, seeding="farama")
    single.reset(seed=4)
    ours.reset(4)
    for action in (1, 2, 2, 0, 2, 2, 2, 2, 2, 2, 0, 2):
        np.testing.assert_array_equal(single.get_full_render(True, 32), ours.render(0))
        _, _, terminated, _, _ = single.step(action)
        ours.step(torch.tensor([action]))
        np.testing.assert_array_equal(single.get_full_render(True, 32), ours.render(0, final=True))
        if terminated:
            break
    assert terminated
    single.reset()
    np.testing.assert_array_equal(single.get_full_render(True, 32), ours.render(0))


@pytest.mark.parametrize("env_id", ["MiniGrid-MemoryS9-v0", "MiniGrid-MemoryS13Random-v0"])
def test_ground_truth_equals_faramas_world(env_id: str) -> None:
    single = rmc_envs.make_reference(env_id, actions=3)()
    ours = rmc_envs.make(env_id, 1, actions=3, seeding="farama")
    assert isinstance(ours, rmc_envs.MemoryMazes)
    with pytest.raises(RuntimeError, match="before the first reset"):
        ours.ground_truth()
    rng = np.random.default_rng(0)
    known: dict[tuple, int] = {}  # everything but the cue -> state_id
    for seed in range(30):
        single.reset(seed=seed)
        ours.reset(seed)
        for _ in range(25):
            maze = single.unwrapped
            assert isinstance(maze, MemoryEnv)
            ground_truth = ours.ground_truth()
            corner = (1, maze.height // 2 - 1)
            cue = maze.grid.get(*corner)
            assert ground_truth.cue.tolist() == [["key", "ball"].index(cue.type)]
            assert ground_truth.x.tolist() == [maze.agent_pos[0]]
            assert ground_truth.cue_in_view.tolist() == [bool(maze.agent_sees(*corner))]
            maze.grid.set(*corner, None)
            rest = (maze.grid.encode().tobytes(), tuple(maze.agent_pos), maze.agent_dir)
            maze.grid.set(*corner, cue)
            assert known.setdefault(rest, int(ground_truth.state_id)) == int(ground_truth.state_id)
            action = int(rng.choice(3, p=[0.2, 0.2, 0.6]))
            *_, terminated, truncated, _ = single.step(action)
            if terminated or truncated:
                break
            ours.step(torch.tensor([action]))
    assert len(set(known.values())) == len(known) > 60


@pytest.mark.parametrize("seeding", ["device", "farama"])
def test_assignment_changes_some_mazes_and_the_others_continue(seeding: Seeding) -> None:
    specs = [MazeSpec(7), MazeSpec(9, random_length=True), MazeSpec(11)]
    mazes = MemoryMazes(specs, 6, actions=3, seeding=seeding)
    mazes.reset(3)
    for _ in range(3):
        mazes.step(torch.zeros(6, dtype=torch.int64))
    before = mazes.state_dict()
    obs = mazes.assign([2, 1, 2, 0, 1, 2])
    assert mazes.task_of.tolist() == [2, 1, 2, 0, 1, 2]
    assert torch.equal(mazes._state[1:], before["state"][1:]), "only the first has another maze"
    assert torch.equal(mazes._clock[1:], before["clock"][1:])
    assert [mazes.tables.place[int(state)][0] for state in mazes._state] == [2, 1, 2, 0, 1, 2]
    # The episode ends at the new maze's limit, and the next episode is in that maze, too.
    saved = mazes.state_dict()
    turn = torch.zeros(6, dtype=torch.int64)
    for step in range(1, MazeSpec(11).max_steps + 1):
        transition = mazes.step(turn)
        assert bool(transition.truncated[0]) == (step == MazeSpec(11).max_steps)
    assert [mazes.tables.place[int(state)][0] for state in mazes._state] == [2, 1, 2, 0, 1, 2]
    other = MemoryMazes(specs, 6, actions=3, seeding=seeding)
    other.reset(5)
    restored = other.load_state_dict(saved)
    assert all(torch.equal(restored[name], obs[name]) for name in obs)
    assert other.task_of.tolist() == [2, 1, 2, 0, 1, 2]


def test_invalid_assignment_is_refused() -> None:
    mazes = MemoryMazes([MazeSpec(7), MazeSpec(9)], 3)
    with pytest.raises(RuntimeError, match="reset"):
        mazes.assign([0, 0, 0])
    mazes.reset(0)
    for task_of in ([0, 1], [0, 1, 2], [0, -1, 1]):
        with pytest.raises(ValueError, match="expected 3 numbers below 2"):
            mazes.assign(task_of)


@pytest.mark.parametrize("steps", [300, 341, 1500])  # 1,024 are drawn at once
def test_prepared_steps_equal_others_at_fixed_addresses_and_leave_the_host_alone(steps: int) -> None:
    specs = [MazeSpec(5), MazeSpec(7)]
    plain, prepared = (MemoryMazes(specs, 64, actions=3) for _ in range(2))
    generator = torch.Generator().manual_seed(0)
    plain.reset(0), prepared.reset(0)
    kept: list[dict] = []
    for piece in range(6):
        prepared.prepare_steps(steps)
        before = {**vars(prepared), **vars(prepared._starts)}
        for _ in range(steps):
            actions = torch.randint(3, (64,), generator=generator)
            ours, theirs = prepared.step(actions), plain.step(actions)
            assert torch.equal(ours.obs["image"], theirs.obs["image"])
            assert torch.equal(ours.done, theirs.done)
        after = {**vars(prepared), **vars(prepared._starts)}
        before.pop("_arrived"), after.pop("_arrived")  # only for pictures
        assert all(after[name] is before[name] or after[name] == before[name] for name in before)
        kept.append({name: x.data_ptr() for name, x in after.items() if isinstance(x, torch.Tensor)})
        if piece == 4:
            prepared.assign([1] * 64), plain.assign([1] * 64)
    assert all(addresses == kept[0] for addresses in kept)
    assert prepared.task_of.tolist() == [1] * 64


def test_state_in_the_middle_of_prepared_steps_continues() -> None:
    env, again = (MemoryMazes(MazeSpec(5), 64, actions=3) for _ in range(2))
    env.reset(3)
    env.prepare_steps(100)
    generator = torch.Generator().manual_seed(0)
    for _ in range(100):
        env.step(torch.randint(3, (64,), generator=generator))
    again.load_state_dict(env.state_dict())
    for _ in range(2000):
        actions = torch.randint(3, (64,), generator=generator)
        env.prepare_steps(1)
        assert torch.equal(again.step(actions).obs["image"], env.step(actions).obs["image"])
