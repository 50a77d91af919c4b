"""Mini PacMan's rules in hand-made states, and its views."""

import numpy as np
import pytest
import torch

from rmc_envs.mini_pacman.maze import (
    CELL_AT,
    COLUMNS,
    IS_FOOD,
    IS_PILL,
    IS_PLAYER,
    IS_WALL,
    NOWHERE,
    NUM_CELLS,
    PLACES,
    ROWS,
)
from rmc_envs.mini_pacman.mini_pacman import MiniPacMan

STAY, RIGHT, UP, LEFT, DOWN = range(5)
FAST = 6
"""Level from which ghosts move in every step; with a powered player, in every second one."""


def scene(
    player: tuple[int, int],
    ghosts: dict[tuple[int, int], int] | None = None,
    food: tuple[tuple[int, int], ...] = ((13, 17),),
    pills: tuple[tuple[int, int], ...] = (),
    power: int = 0,
    level: int = 1,
    num_envs: int = 1,
    **options,
) -> MiniPacMan:
    """Return a task in a state: places by row and column, ghosts with the direction of their last move."""
    task = MiniPacMan(num_envs, **options)
    task.reset(seed=0)
    state = task.state_dict()
    items = np.where(state["items"][0].numpy() == IS_WALL, IS_WALL, 0).astype(np.int16)
    for kind, places in ((IS_FOOD, food), (IS_PILL, pills)):
        for place in places:
            items[PLACES[CELL_AT[place]]] = kind
    poses = torch.full_like(state["ghosts"], 4 * NOWHERE)
    for i, (place, direction) in enumerate((ghosts or {}).items()):
        poses[:, i] = 4 * int(CELL_AT[place]) + direction - RIGHT
    whole = torch.ones(num_envs, dtype=torch.int64)
    state.update(
        items=torch.from_numpy(items).repeat(num_envs, 1),
        ghosts=poses,
        player=whole * int(CELL_AT[player]),
        food=whole * (len(food) + len(pills)),
        pills=whole * len(pills),
        power=whole * power,
        level=whole * level,
    )
    task.load_state_dict(state)
    return task


def act(task: MiniPacMan, action: int) -> tuple[float, bool]:
    """Return the reward of an action in the first environment, and whether the episode was terminated."""
    step = task.step(torch.full((task.num_envs,), action))
    return float(step.reward[0]), bool(step.terminated[0])


def ghosts_of(task: MiniPacMan, i: int = 0) -> list[tuple[int, int]]:
    cells = task.state_dict()["ghosts"][i] // 4
    return [(int(ROWS[cell]), int(COLUMNS[cell])) for cell in cells if cell < NUM_CELLS]


def test_player_eats_food_and_pills_once() -> None:
    task = scene((3, 3), food=((3, 4), (13, 17)), pills=((3, 5),))
    assert act(task, RIGHT) == (1.0, False)
    assert act(task, STAY) == (0.0, False)
    assert act(task, RIGHT) == (3.0, False)  # a pill, and the food below it
    assert int(task.state_dict()["power"]) == 20
    assert act(task, LEFT) == (0.0, False)
    assert int(task.state_dict()["power"]) == 19
    assert act(task, UP) == (0.0, False)  # a wall
    assert task.whereabouts()[0].tolist() == [CELL_AT[3, 4]]


def test_ghost_on_the_players_cell_ends_the_episode() -> None:
    walks_into_it = scene((3, 3), {(3, 4): RIGHT})
    assert act(walks_into_it, RIGHT) == (0.0, True)
    is_caught = scene((3, 5), {(3, 4): RIGHT}, level=FAST)
    assert act(is_caught, STAY) == (0.0, True)
    eats_before_dying = scene((3, 3), {(3, 4): RIGHT}, food=((3, 4), (1, 1)))
    assert act(eats_before_dying, RIGHT) == (1.0, True)


def test_powered_player_eats_one_ghost_in_a_step() -> None:
    task = scene((3, 3), {(3, 4): RIGHT, (9, 9): RIGHT}, power=20)
    assert act(task, RIGHT) == (5.0, False)
    assert ghosts_of(task) == [(9, 9)]  # which lost its turn
    state = scene((3, 3), {(3, 4): RIGHT}, power=20).state_dict()
    state["ghosts"][:, 1] = state["ghosts"][:, 0]  # two in one cell
    task.load_state_dict(state)
    assert act(task, RIGHT) == (5.0, False)
    assert ghosts_of(task) == [(3, 4)]
    assert act(task, STAY) == (5.0, False)
    assert ghosts_of(task) == []


def test_power_ends_after_twenty_steps() -> None:
    task = scene((3, 3), pills=((3, 4),))
    act(task, RIGHT)
    for left in range(19, -1, -1):
        act(task, STAY)
        assert int(task.state_dict()["power"]) == left


def first_ghosts_after_a_step(task: MiniPacMan) -> list[tuple[int, int]]:
    task.step(torch.full((task.num_envs,), STAY))
    cells = task.state_dict()["ghosts"][:, 0] // 4
    return list(zip(ROWS[cells].tolist(), COLUMNS[cells].tolist(), strict=True))


@pytest.mark.parametrize(
    ("level", "power", "expected"), [(1, 0, 0.5), (3, 0, 0.7), (1, 9, 0.25), (6, 0, 1.0), (9, 9, 0.65)]
)
def test_ghosts_move_with_the_probability_of_their_level(level: int, power: int, expected: float) -> None:
    task = scene((13, 17), {(3, 10): LEFT}, food=((1, 1),), level=level, power=power, num_envs=4000)
    places = first_ghosts_after_a_step(task)
    assert set(places) <= {(3, 10), (3, 9)}
    assert abs(places.count((3, 9)) / 4000 - expected) < 0.03


def test_ghosts_choose_at_random_at_one_of_twenty_junctions() -> None:
    task = scene((3, 17), {(3, 3): RIGHT}, food=((1, 1),), level=FAST, num_envs=4000)
    places = first_ghosts_after_a_step(task)
    assert set(places) == {(3, 4), (2, 3), (4, 3)}
    # A random choice is the greedy one in a third of the cases.
    assert abs(1 - places.count((3, 4)) / 4000 - 0.05 * 2 / 3) < 0.012


def test_last_food_begins_the_next_level_with_more_ghosts() -> None:
    task = scene((3, 3), {(3, 5): LEFT}, food=((3, 4),), level=FAST)
    step = task.step(torch.tensor([RIGHT]))  # the ghost would have caught the player
    assert float(step.reward) == 1
    assert not bool(step.done)
    assert torch.equal(step.obs, step.final_obs)
    state = task.state_dict()
    assert int(state["level"]) == 7
    assert len(ghosts_of(task)) == 4
    assert int(state["food"]) == NUM_CELLS
    assert int((state["items"] == IS_PILL).sum()) == 2
    assert int((state["items"] == IS_FOOD).sum()) == NUM_CELLS - 2
    for level, ghosts in ((1, 1), (2, 2), (3, 2), (4, 3), (13, 7), (14, 8), (20, 8)):
        task = scene((3, 3), food=((3, 4),), level=level)
        act(task, RIGHT)
        assert len(ghosts_of(task)) == ghosts


def test_death_begins_a_new_episode_at_level_1() -> None:
    task = scene((3, 3), {(3, 4): RIGHT}, level=5)
    act(task, RIGHT)
    assert task.whereabouts()[1].tolist() == [1]
    assert len(ghosts_of(task)) == 1


@pytest.mark.parametrize(
    ("mode", "food", "pill", "ghost", "death"),
    [
        ("avoid", 0.0, -5.0, -9.9, -19.9),  # 0.1 for each step
        ("hunt", 0.0, 1.0, 10.0, -20.0),
        ("ambush", -0.1, -0.1, 10.0, -20.0),
        ("rush", -0.1, 9.9, 0.0, 0.0),
    ],
)
def test_modes_have_their_own_rewards(mode, food: float, pill: float, ghost: float, death: float) -> None:
    far, more = {(13, 17): RIGHT}, {"food": ((1, 1),), "pills": ((1, 3), (5, 3))}
    cases = (
        (scene((3, 3), far, food=((3, 4), (1, 1)), pills=((1, 3),), mode=mode), food),
        (scene((3, 3), far, food=((1, 1),), pills=((3, 4), (1, 3)), mode=mode), pill),
        (scene((3, 3), {(3, 4): RIGHT, **far}, power=9, mode=mode, **more), ghost),
        (scene((3, 3), {(3, 4): RIGHT}, mode=mode, **more), death),
    )
    for task, reward in cases:
        found, dead = act(task, RIGHT)
        assert found == pytest.approx(reward)
        assert dead == (reward == death and task is cases[-1][0])


def test_modes_end_levels_in_their_own_way() -> None:
    for mode in ("hunt", "ambush"):
        task = scene((3, 3), {(3, 4): RIGHT, (9, 9): LEFT}, power=9, mode=mode)
        act(task, RIGHT)
        assert task.whereabouts()[1].tolist() == [1]
        task = scene((3, 3), {(3, 4): RIGHT}, power=9, mode=mode)
        act(task, RIGHT)
        assert task.whereabouts()[1].tolist() == [2]
        task = scene((3, 3), {(13, 17): LEFT}, food=((3, 4),), mode=mode)
        act(task, RIGHT)
        assert task.whereabouts()[1].tolist() == [1]
    task = scene((3, 3), {(13, 17): LEFT}, pills=((3, 4),), mode="rush")
    act(task, RIGHT)
    assert task.whereabouts()[1].tolist() == [2]
    task = scene((3, 3), mode="avoid")
    levels = []
    for _ in range(129):
        levels.append(int(task.whereabouts()[1]))
        act(task, STAY)
    assert levels == [1] * 128 + [2]


def test_last_step_truncates() -> None:
    task = scene((3, 3), max_steps=2)
    assert not bool(task.step(torch.tensor([STAY])).truncated)
    step = task.step(torch.tensor([STAY]))
    assert bool(step.truncated)
    assert not bool(step.terminated)


def test_observation_shows_food_pills_player_and_ghosts() -> None:
    ghosts = {(3, 4): RIGHT, (9, 9): LEFT}
    task = scene((3, 3), ghosts, food=((3, 4), (3, 2)), pills=((1, 3),), view_size=5)
    image = task.load_state_dict(task.state_dict())[0]
    rows_1_to_5 = [[0, 0, 3, 1, 0], [0, 1, 0, 1, 0], [0, 2, 4, 2, 0], [0, 1, 0, 1, 0], [0, 1, 0, 0, 0]]
    assert image[:, :, 0].tolist() == rows_1_to_5
    assert image[:, :, 1].nonzero().tolist() == [[2, 3]]
    assert int(image[2, 3, 1]) == 1
    state = task.state_dict()
    state["power"] += 12
    assert int(task.load_state_dict(state)[0, 2, 3, 1]) == 13
    assert task.load_state_dict(state)[0, 2, 2].tolist() == [IS_PLAYER, 0]


def test_viewport_is_a_part_of_the_full_view() -> None:
    full, part = MiniPacMan(6, max_steps=150), MiniPacMan(6, view_size=5, max_steps=150)
    whole, view = full.reset(seed=5), part.reset(seed=5)
    moves = torch.Generator().manual_seed(1)
    for _ in range(300):
        for i, cell in enumerate(full.whereabouts()[0].tolist()):
            padded = np.pad(whole[i].numpy(), ((2, 2), (2, 2), (0, 0)))
            padded[..., 0] = np.pad(whole[i, :, :, 0].numpy(), 2, constant_values=IS_WALL)
            row, column = ROWS[cell], COLUMNS[cell]
            assert np.array_equal(padded[row : row + 5, column : column + 5], view[i].numpy())
        actions = torch.randint(5, (6,), generator=moves)
        one, other = full.step(actions), part.step(actions)
        assert torch.equal(one.reward, other.reward)
        assert torch.equal(one.done, other.done)
        whole, view = one.obs, other.obs


def test_auxiliary_targets_are_where_food_is_left() -> None:
    task = scene((3, 3), food=((3, 4), (13, 17)), pills=((1, 1),), view_size=5)
    act(task, RIGHT)
    targets = task.auxiliary_targets()
    assert targets is not None
    assert targets.values.shape == (1, task.aux_size) == (1, NUM_CELLS)
    assert (targets.values[0] > 0).nonzero().flatten().tolist() == [CELL_AT[1, 1], CELL_AT[13, 17]]
    assert targets.values.abs().unique().tolist() == targets.weights.unique().tolist() == [1.0]
    assert scene((3, 3)).auxiliary_targets() is None


def test_food_that_is_left_is_counted() -> None:
    task = MiniPacMan(16, max_steps=400)
    task.reset(seed=6)
    moves = torch.Generator().manual_seed(2)
    for _ in range(500):
        task.step(torch.randint(5, (16,), generator=moves))
    state = task.state_dict()
    items = state["items"]
    assert torch.equal(((items == IS_FOOD) | (items == IS_PILL)).sum(1), state["food"])
    assert torch.equal((items == IS_PILL).sum(1), state["pills"])


def test_pictures_show_state_and_end() -> None:
    task = scene((3, 3), {(3, 5): LEFT}, view_size=5)
    first = task.render()
    assert first.shape == (32 * 16, 32 * 19, 3)
    powered = scene((3, 3), {(3, 5): LEFT}, view_size=5, power=7).render()
    act(task, RIGHT)
    task = scene((3, 3), {(3, 4): RIGHT}, view_size=5)
    before = task.render()
    act(task, RIGHT)  # death
    ended, new = task.render(final=True), task.render()
    pictures = [first, powered, before, ended, new]
    for i, one in enumerate(pictures):
        for other in pictures[:i]:
            assert not np.array_equal(one, other)
    with pytest.raises(RuntimeError, match="reset"):
        MiniPacMan(1).render()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"view_size": 6}, "view_size=6: expected an odd number"),
        ({"view_size": 15}, "view_size=15"),
        ({"mode": "easy"}, "mode='easy': expected one of regular, avoid, hunt, ambush, rush"),
        ({"max_steps": 0}, "max_steps=0"),
    ],
)
def test_options_out_of_range_are_refused(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MiniPacMan(1, **options)
