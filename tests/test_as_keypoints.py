"""Key-points: Algorithm 1 against its literal transcription, seeds, and places."""

import numpy as np
import pytest
import torch

from pointseg.papers.attentionshift.filtering import filter_keypoints, part_precision
from pointseg.papers.attentionshift.shift import nearest_tokens, random_seeds, spread_seeds
from pointseg.papers.attentionshift.tokens import Tokens, token_at, token_centres


def algorithm_1(psi, parts, foreground, T_f, T_m):
    """[AS Alg. 1] line by line, with the merged key-points taken out of Psi."""

    def angle(a, b):
        return float(a @ b) / (np.linalg.norm(a) * np.linalg.norm(b))

    left = {}
    for k in range(len(psi)):
        area = int(parts[k].sum())
        if area and int((parts[k] & foreground).sum()) / area >= T_f:
            left[k] = area
    merged = []
    while left:
        m = max(left, key=lambda k: (left[k], -k))
        group = [k for k in left if k == m or angle(psi[k], psi[m]) > T_m]
        merged.append(np.mean([psi[k] for k in group], axis=0))
        for k in group:
            del left[k]
    return merged


def partition(draw, count, tokens):
    owner = draw.integers(0, count, tokens)
    return np.arange(count)[:, None] == owner


@pytest.mark.parametrize("overlapping", [False, True])
def test_alg1_equals_its_transcription(overlapping):
    """Filtering, then merging, in the words of the paper. [AS Alg. 1]"""
    draw = np.random.default_rng(int(overlapping))
    for _ in range(200):
        n, k, s, d = (
            draw.integers(1, 4),
            draw.integers(1, 9),
            draw.integers(1, 20),
            draw.integers(2, 4),
        )
        psi = draw.normal(0.5, 1, (n, k, d))
        parts = np.stack(
            [draw.random((k, s)) < 0.4 if overlapping else partition(draw, k, s) for _ in range(n)]
        )
        foreground = draw.random((n, s)) < draw.choice([0.1, 0.7, 1.0])
        t_f, t_m = draw.choice([0.5, 0.85]), draw.choice([0.0, 0.85])
        done = filter_keypoints(*map(torch.tensor, (psi, parts, foreground)), t_f, t_m)
        for i in range(n):
            wanted = algorithm_1(psi[i], parts[i], foreground[i], t_f, t_m)
            assert done.valid[i].sum() == len(wanted)
            assert done.valid[i][: len(wanted)].all()
            if wanted:
                assert np.allclose(done.features[i][: len(wanted)].numpy(), np.stack(wanted))


def test_alg1_by_hand():
    # four key-points: 0 and 1 alike, 2 elsewhere, 3 off the object. Areas 2, 3, 2, 2.
    psi = torch.tensor([[[1.0, 0.1], [1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]]])
    owner = torch.tensor([0, 0, 1, 1, 1, 2, 2, 3, 3])
    parts = (owner == torch.arange(4)[:, None])[None]
    foreground = (owner < 3)[None]
    done = filter_keypoints(psi, parts, foreground, 0.85, 0.85)
    assert done.valid.tolist() == [[True, True, False, False]]
    assert torch.allclose(done.features[0, :2], torch.tensor([[1.0, 0.05], [0.0, 1.0]]))
    assert done.members[0, 0].tolist() == [True, True, False, False]


def test_alg1_chain_of_likeness_is_cut_at_the_largest():
    # a - b - c in a row at 25 degrees: a and c are each like b, not like one another. b is
    # largest: one group.
    turn = torch.tensor([-25.0, 0.0, 25.0]).deg2rad()
    psi = torch.stack([turn.cos(), turn.sin()], -1)[None]
    whole = torch.ones(1, 6, dtype=torch.bool)
    largest_b = torch.tensor([[0, 1, 1, 1, 2, 2]])
    largest_a = torch.tensor([[0, 0, 0, 1, 1, 2]])
    count = [int(filter_keypoints(psi, owner[:, None] == torch.arange(3)[:, None],
                                  whole).valid.sum())
             for owner in (largest_b, largest_a)]  # fmt: skip
    assert count == [1, 2]


def test_alg1_groups_share_nothing_and_lose_nothing():
    draw = np.random.default_rng(3)
    psi = torch.tensor(draw.normal(0.3, 1, (5, 12, 3)))
    parts = torch.tensor(np.stack([partition(draw, 12, 40) for _ in range(5)]))
    foreground = torch.tensor(draw.random((5, 40)) < 0.9)
    done = filter_keypoints(psi, parts, foreground, 0.8, 0.5)
    kept = part_precision(parts, foreground) >= 0.8
    assert torch.equal(done.members.sum(1), kept.long())


def test_alg1_without_a_threshold_a_key_point_that_owns_nothing_is_removed_all_the_same():
    """T_f = 0: 0 / 0 of an empty part is not at least 0."""
    parts = torch.tensor([[[True, True, False], [False, False, False], [False, False, True]]])
    done = filter_keypoints(torch.eye(3)[None], parts, torch.zeros(1, 3) > 0, 0.0, 0.9)
    assert done.members.any(1).tolist() == [[True, False, True]]


def test_alg1_mean_weighs_key_points_by_their_length():
    """DEVIATION [AS Alg. 1 l. 19]: lengths are those of tokens, whatever share of them is Phi+."""
    psi = torch.tensor([[[3.0, 0.0], [0.6, 0.8]]])
    parts = torch.eye(2, dtype=torch.bool)[None]
    done = filter_keypoints(psi, parts, torch.ones(1, 2) > 0, 0.85, 0.5)
    assert torch.allclose(done.features[0, 0], torch.tensor([1.8, 0.4]))


def test_alg1_every_key_point_filtered_and_no_instance():
    parts = torch.ones(1, 2, 3, dtype=torch.bool)
    gone = filter_keypoints(torch.randn(1, 2, 4), parts, torch.zeros(1, 3, dtype=torch.bool))
    assert not gone.valid.any()
    assert gone.features.isfinite().all()
    none = filter_keypoints(torch.zeros(0, 2, 4), parts[:0], torch.zeros(0, 3, dtype=torch.bool))
    assert none.features.shape == (0, 2, 4)


def test_spread_seeds_go_through_the_area_at_a_constant_stride():
    area = torch.tensor([[0, 1, 1, 1, 1, 1, 1, 0], [0, 0, 1, 0, 0, 1, 0, 0], [0] * 8]).bool()
    seeds = spread_seeds(area, 3, torch.tensor([7, 7, 6]))
    assert seeds.tolist() == [[1, 3, 5], [2, 2, 5], [6, 6, 6]]


def test_random_seeds_lie_in_the_area_and_reach_all_of_it():
    area = torch.tensor([[0, 1, 0, 1, 1, 0, 0, 0], [0] * 8]).bool()
    seeds = random_seeds(area, 200, torch.tensor([0, 5]), torch.tensor([11, 12]))
    assert set(seeds[0].tolist()) == {1, 3, 4}
    assert set(seeds[1].tolist()) == {5}


def test_eq04_is_the_most_similar_allowed_token():
    """[AS Eq. 4]"""
    tokens = Tokens.of(torch.tensor([[[1.0, 0], [1, 1], [0, 1]]]))
    points = torch.tensor([[[5.0, 4.0], [0.1, 3.0]]])
    every = torch.ones(1, 3, dtype=torch.bool)
    assert nearest_tokens(points, tokens, every).tolist() == [[1, 2]]
    assert nearest_tokens(points, tokens, torch.tensor([[True, False, False]])).tolist() == [[0, 0]]


def test_token_and_pixel_speak_of_the_same_place():
    grid, stride = (3, 5), 8.0
    index = torch.arange(15)
    assert token_at(token_centres(index, grid, stride), grid, stride).tolist() == index.tolist()
    assert token_centres(torch.tensor(6), grid, stride).tolist() == [12, 12]
    assert token_at(
        torch.tensor([[39.9, 23.9], [400.0, 400.0], [-1.0, 0.0]]), grid, stride
    ).tolist() == [14, 14, 0]
