"""Key-point shift against a double loop in float64, and the laws its equations promise."""

import math

import numpy as np
import pytest
import torch

from pointseg.papers.attentionshift.cells import Cells
from pointseg.papers.attentionshift.shift import (
    bandwidth,
    cells_of,
    density_weights,
    part_maps,
    shift,
    token_owners,
    weighted_means,
)
from pointseg.papers.attentionshift.tokens import Region, Tokens


def shifted(seeds, features, inside, plus=None, **how):
    """The shift of key-points through features [n, S, D]."""
    return shift(seeds, Tokens.of(features), inside, inside if plus is None else plus, **how)


def cosine(prototypes, features):
    return Tokens.of(features).cosines(prototypes)


def listed(score, inside):
    """[n, K, S] bool: the cells that are listed."""
    cells = torch.zeros_like(score, dtype=torch.bool)
    cells.view(-1)[Cells.of(score, inside).entry] = True
    return cells


def angle(a, b):
    lengths = math.sqrt(float(a @ a)) * math.sqrt(float(b @ b))
    return float(a @ b) / lengths if lengths > 0 else 0.0


def slow_scores(points, tokens, rule, alpha, beta):
    """scores[k][s] by which a token chooses its key-point."""
    table = [[angle(token, point) for token in tokens] for point in points]
    if rule == "cosine":
        return [[1 + value for value in row] for row in table]
    scores = []
    for k, row in enumerate(table):
        if rule == "share":
            total = sum(max(value, 0.0) for value in row)
            scores.append([max(value, 0.0) / total if total > 1e-12 else 0.0 for value in row])
        else:
            top = max(row)
            powers = [math.exp((value - top) / (alpha * beta[k])) for value in row]
            scores.append([power / sum(powers) for power in powers])
    return scores


def slow_owners(scores):
    owners = []
    for s in range(len(scores[0])):
        best = max(row[s] for row in scores)
        owners.append(next(k for k, row in enumerate(scores) if row[s] >= best * (1 - 2e-15)))
    return owners


def slow_beta(points, tokens, owners, floor):
    beta = []
    for k, point in enumerate(points):
        cell = [angle(token, point) for token, owner in zip(tokens, owners) if owner == k]
        beta.append(max(1 - sum(cell) / len(cell) if cell else 1.0, floor))
    return beta


def slow_move(points, tokens, plus, owners, beta, alpha):
    moved = []
    for k, point in enumerate(points):
        cell = [
            token for token, drawing, owner in zip(tokens, plus, owners) if owner == k and drawing
        ]
        if not cell:
            moved.append(point)
            continue
        near = [angle(token, point) for token in cell]
        scale = 0.0 if math.isinf(alpha) else 1 / (alpha * beta[k])
        weights = [math.exp((value - max(near)) * scale) for value in near]
        moved.append(sum(w * token for w, token in zip(weights, cell)) / sum(weights))
    return moved


def slow_shift(seeds, tokens, plus, alpha, iterations, rule, floor):
    """One instance, its own tokens only: [AS Eq. 2], [AS Eq. 5], [AS Eq. 6], [AS Eq. 7] word by
    word."""
    points, held = list(seeds), None
    for turn in range(iterations + 1):
        if rule == "softmax":
            beta = [0.1] * len(points) if held is None else slow_beta(points, tokens, held, floor)
            owners = slow_owners(slow_scores(points, tokens, rule, alpha, beta))
        else:
            owners = slow_owners(slow_scores(points, tokens, rule, alpha, None))
            beta = slow_beta(points, tokens, owners, floor)
        if turn < iterations:
            points, held = slow_move(points, tokens, plus, owners, beta, alpha), owners
    return np.stack(points), owners


def ragged_case(draw):
    """Instances of 1 to 12 tokens behind padding of garbage, with exact ties, repeated seeds
    and lone tokens."""
    n, k, d = draw.integers(1, 4), draw.integers(1, 6), draw.integers(2, 6)
    counts = draw.choice([1, 1, 2, 3, 7, 12], n)
    longest = counts.max() + draw.integers(0, 3)
    tokens = draw.normal(draw.choice([0.0, 1.0]), 1, (n, longest, d)) * draw.choice([0.1, 1, 30])
    if draw.random() < 0.4:
        tokens = np.round(tokens)
    if draw.random() < 0.3:
        tokens[:, longest // 2 :] = tokens[:, : longest - longest // 2]
    inside = np.zeros((n, longest), bool)
    for row, count in zip(inside, counts):
        row[draw.permutation(longest)[:count]] = True
    chosen = np.stack([draw.choice(np.flatnonzero(row), k) for row in inside])
    return tokens, inside, tokens[np.arange(n)[:, None], chosen]


@pytest.mark.parametrize("rule", ["share", "cosine", "softmax"])
def test_eq02_to_eq07_shift_equals_the_double_loop(rule):
    """Batched products against one token at a time in float64. [AS Eq. 2-3], [AS Eq. 5-7]"""
    draw = np.random.default_rng({"share": 1, "cosine": 2, "softmax": 3}[rule])
    for _ in range(150):
        tokens, inside, seeds = ragged_case(draw)
        alpha = draw.choice([0.1, 1.0, 10.0] if rule == "softmax" else [0.1, 1.0, 10.0, math.inf])
        turns, floor = int(draw.integers(0, 6)), draw.choice([1e-2, 1e-1])
        plus = draw.random(inside.shape) < draw.choice([0.0, 0.5, 1.0], p=[0.1, 0.5, 0.4])
        given = map(torch.tensor, (seeds, tokens, inside, plus))
        done = shifted(*given, alpha=alpha, iterations=turns, rule=rule, floor=floor)
        for i in range(len(tokens)):
            mine = inside[i]
            points, owners = slow_shift(
                seeds[i], tokens[i][mine], plus[i][mine], alpha, turns, rule, floor
            )
            scale = max(np.abs(points).max(), 1e-9)
            assert np.abs(done.features[i].numpy() - points).max() / scale < 1e-5
            assert done.owner[i][mine].tolist() == owners
            assert (done.owner[i][~mine] == -1).all()


def test_eq02_shares_sum_to_one_and_ignore_tokens_outside():
    """[AS Eq. 2]"""
    tokens = torch.rand(3, 9, 4, dtype=torch.float64)
    inside = torch.rand(3, 9) < 0.6
    inside[:, 0] = True
    maps = part_maps(cosine(tokens[:, :2], tokens), inside)
    assert torch.allclose(maps.sum(-1), torch.ones(3, 2, dtype=torch.float64))
    assert not maps[~inside[:, None].expand_as(maps)].any()


def test_eq02_a_key_point_with_few_similar_tokens_outbids_one_with_many():
    # psi_0 is alike to all four tokens (shares 1/4), psi_1 to the last alone (share 1): cosine
    # would tie on it
    similarity = torch.tensor([[[1.0, 1, 1, 1], [0, 0, 0, 1.0]]])
    inside = torch.ones(1, 4, dtype=torch.bool)
    assert token_owners(part_maps(similarity, inside), inside).tolist() == [[0, 0, 0, 1]]
    assert token_owners(similarity, inside).tolist() == [[0, 0, 0, 0]]


def test_eq03_only_ties_go_to_the_first():
    """A later key-point that is better by five millionths owns the token; an equal one does not."""
    score = torch.full((1, 20, 3), 0.5)
    score[0, 19] = torch.tensor([0.5, 0.5 * (1 + 5e-6), 0.5 * (1 + 1.2e-7)])
    inside = torch.ones(1, 3, dtype=torch.bool)
    assert token_owners(score, inside).tolist() == [[0, 19, 0]]
    assert torch.equal(listed(score, inside), cells_of(token_owners(score, inside), 20))


def test_eq03_owners_are_the_arg_max_wherever_it_is_clear():
    score = torch.rand(5, 20, 2000, generator=torch.Generator().manual_seed(0))
    inside = torch.ones(5, 2000, dtype=torch.bool)
    first, second = score.topk(2, dim=1).values.unbind(1)
    clear = first > second * (1 + 2e-6)
    assert torch.equal(token_owners(score, inside)[clear], score.argmax(1)[clear])
    assert clear.float().mean() > 0.999


def test_eq03_is_eq07_with_alpha_infinite():
    """[AS Eq. 3], [AS Eq. 7]"""
    tokens = torch.randn(2, 8, 3, dtype=torch.float64)
    inside = torch.ones(2, 8, dtype=torch.bool)
    seeds = tokens[:, :3]
    cells = listed(part_maps(cosine(seeds, tokens), inside), inside)
    plain = torch.stack([torch.stack([tokens[i][cells[i, k]].mean(0) if cells[i, k].any()
                                      else seeds[i, k]
                                      for k in range(3)]) for i in range(2)])  # fmt: skip
    once = [features(seeds, tokens, inside, alpha=a, iterations=1) for a in (math.inf, 1e9)]
    assert torch.allclose(once[0], plain)
    assert torch.allclose(once[1], plain, atol=1e-6)


def test_eq03_a_key_point_is_the_mean_of_the_foreground_tokens_it_owns():
    """Phi+ under the sums of [AS Eq. 3] and [AS Eq. 7]: what is owned but not foreground draws
    nothing."""
    tokens = torch.tensor([[[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]]])
    everything, plus = torch.ones(1, 3, dtype=torch.bool), torch.tensor([[True, True, False]])
    done = shifted(tokens[:, :1], tokens, everything, plus, alpha=math.inf, iterations=1)
    assert torch.allclose(done.features[0, 0], torch.tensor([0.9, 0.3]))
    assert done.owner.tolist() == [[0, 0, 0]]
    nowhere = shifted(tokens[:, :1], tokens, everything, ~everything, iterations=3)
    assert torch.equal(nowhere.features, tokens[:, :1])


def test_eq05_weights_sum_to_one_in_the_cell_and_favour_the_near():
    """[AS Eq. 5]"""
    similarity = torch.tensor([[[0.9, 0.5, 0.1, 0.7]]])
    cells = torch.tensor([[[True, True, False, True]]])
    weights = density_weights(similarity, cells, torch.tensor([[0.3]]), 1.0)
    assert weights.sum() == pytest.approx(1)
    assert weights[0, 0, 2] == 0
    assert weights[0, 0, 0] > weights[0, 0, 3] > weights[0, 0, 1]
    # by hand: exp((0.9 - 0.5) / 0.3) = exp(4 / 3)
    assert float(weights[0, 0, 0] / weights[0, 0, 1]) == pytest.approx(math.exp(4 / 3))


@pytest.mark.parametrize("sharing", [None, [1, 2, 0]])
def test_eq03_to_eq07_on_a_list_of_tokens_equal_the_printed_forms(sharing):
    """[AS Eq. 3], [AS Eq. 5], [AS Eq. 6], [AS Eq. 7]"""
    generator = torch.Generator().manual_seed(1)
    features = torch.randn(3, 30, 5, generator=generator, dtype=torch.float64)
    tokens, before = Tokens.of(features, sharing), features[:, :7] + 1
    for _ in range(20):
        score = torch.rand(3, 7, 30, generator=generator, dtype=torch.float64).mul(6).round()
        similarity = torch.rand(3, 7, 30, generator=generator, dtype=torch.float64)
        inside, plus = (torch.rand(2, 3, 30, generator=generator) < 0.8).unbind()
        cells, short = cells_of(token_owners(score, inside), 7), Cells.of(score, inside)
        beta = bandwidth(similarity, cells, 0.1)
        alike = short.similarities(similarity)
        assert torch.allclose(short.bandwidths(alike, 0.1), beta.flatten())
        weights = density_weights(similarity, cells & plus[:, None], beta, 0.7)
        drawing, alike = short.drawn_by(plus.flatten(), alike)
        shares = drawing.weights(alike, beta.flatten(), 0.7)
        assert torch.allclose(shares, weights.flatten()[drawing.entry])
        assert (drawing.size == (cells & plus[:, None]).sum(-1).flatten()).all()
        moved = drawing.means(shares, tokens, tokens.addresses(), before)
        assert torch.allclose(moved, weighted_means(weights, tokens, before))
        assert moved.isfinite().all()


def test_eq05_small_alpha_picks_the_nearest_token():
    similarity = torch.tensor([[[0.9, 0.5, 0.1, 0.7]]])
    weights = density_weights(
        similarity, torch.ones(1, 1, 4, dtype=torch.bool), torch.tensor([[1.0]]), 1e-3
    )
    assert torch.allclose(weights, torch.tensor([[[1.0, 0, 0, 0]]]))


def test_eq06_bandwidth_by_hand():
    """[AS Eq. 6]"""
    similarity = torch.tensor([[[0.8, 0.6, -1.0], [0.5, 0.5, 0.5]]])
    cells = torch.tensor([[[True, True, False], [False, False, False]]])
    # 1 - (0.8 + 0.6) / 2 = 0.3; an empty cell has 1; the floor holds
    assert torch.allclose(bandwidth(similarity, cells, 0.0), torch.tensor([[0.3, 1.0]]))
    assert torch.allclose(bandwidth(similarity, cells, 0.4), torch.tensor([[0.4, 1.0]]))


def test_eq06_denser_cells_have_the_smaller_bandwidth():
    """The paper's sentence says larger; its formula (and this code) say smaller."""
    similarity = torch.tensor([[[0.99, 0.98], [0.6, 0.5]]])
    beta = bandwidth(similarity, torch.ones(1, 2, 2, dtype=torch.bool), 0.0)[0]
    assert beta[0] < beta[1]


def test_eq07_a_key_point_without_tokens_stays():
    """[AS Eq. 7]"""
    before = torch.randn(1, 2, 3)
    weights = density_weights(
        torch.ones(1, 2, 2), torch.tensor([[[True, True], [False, False]]]), torch.ones(1, 2), 1.0
    )
    moved = weighted_means(weights, Tokens.of(torch.ones(1, 2, 3)), before)
    assert torch.equal(moved[0, 1], before[0, 1])
    assert torch.allclose(moved[0, 0], torch.ones(3))


def test_two_clear_parts_are_found_from_seeds_in_one_of_them():
    # two directions 90 degrees apart, 6 tokens each, little noise; both seeds start in part 0
    generator = torch.Generator().manual_seed(0)
    base = (
        torch.eye(2).repeat_interleave(6, 0) + 0.1 * torch.randn(12, 2, generator=generator).abs()
    )
    done = shifted(base[None, [0, 1]], base[None], torch.ones(1, 12, dtype=torch.bool))
    owners = done.owner[0]
    assert len(set(owners[:6].tolist()) | set(owners[6:].tolist())) == 2
    assert (owners[6:] == owners[6]).all()


def features(seeds, tokens, inside, **how):
    return shifted(seeds, tokens, inside, **how).features


def test_instances_do_not_meet_and_their_order_is_kept():
    tokens, inside, seeds = map(torch.tensor, ragged_case(np.random.default_rng(5)))
    together = features(seeds, tokens, inside)
    flipped = features(seeds.flip(0), tokens.flip(0), inside.flip(0)).flip(0)
    alone = [
        features(seeds[i : i + 1], tokens[i : i + 1], inside[i : i + 1]) for i in range(len(tokens))
    ]
    assert torch.allclose(together, flipped)
    assert torch.allclose(together, torch.cat(alone))


def test_tokens_outside_change_nothing():
    tokens, inside, seeds = map(torch.tensor, ragged_case(np.random.default_rng(6)))
    noisy = torch.where(inside[..., None], tokens, 1e3 * torch.randn_like(tokens))
    assert torch.allclose(features(seeds, tokens, inside), features(seeds, noisy, inside))


@pytest.mark.parametrize("share, kept", [(0.3, False), (0.9, True)])
def test_picked_and_shared_tokens_give_the_same_shift_as_copies(share, kept):
    """Small boxes are picked, large ones share the tokens of their image: the same in all cases."""
    draw = np.random.default_rng(7)
    image_tokens = torch.tensor(draw.normal(size=(3, 30, 5)))
    image, inside = torch.tensor([0, 1, 1]), torch.tensor(draw.random((3, 30)) < share)
    region = Region.of(inside)
    assert (region.index.shape[1] == 30) == kept
    shared = Tokens.of(image_tokens, [1, 2, 0])
    first = inside.to(torch.uint8).argsort(dim=1, descending=True, stable=True)[:, :4]
    seeds = shared.features_at(first)
    assert torch.allclose(seeds, image_tokens[image[:, None], first])
    small = shift(seeds, region.of_tokens(shared), region.inside, region.inside)
    whole = shifted(seeds, image_tokens[image], inside)
    assert torch.allclose(whole.features, small.features)
    for i in range(3):
        index, there = region.index[i], region.inside[i]
        assert whole.owner[i][index[there]].tolist() == small.owner[i][there].tolist()


def test_path_holds_every_iteration_and_no_iteration_is_the_seed():
    tokens = torch.randn(1, 6, 3)
    inside = torch.ones(1, 6, dtype=torch.bool)
    done = shifted(tokens[:, :2], tokens, inside, iterations=4, keep_path=True)
    assert len(done.path) == 5
    assert torch.equal(done.path[0], tokens[:, :2])
    assert torch.equal(done.path[-1], done.features)
    for n in range(5):
        assert torch.allclose(done.path[n], features(tokens[:, :2], tokens, inside, iterations=n))


def test_no_instance_no_token_and_softmax_with_infinite_alpha():
    none = shifted(torch.zeros(0, 5, 3), torch.zeros(0, 4, 3), torch.zeros(0, 4, dtype=torch.bool))
    assert none.features.shape == (0, 5, 3)
    assert none.cells.shape == (0, 5, 4)
    region = Region.of(torch.zeros(0, 4, dtype=torch.bool))
    assert region.index.shape == region.inside.shape == (0, 1)
    outside = shifted(torch.ones(1, 2, 3), torch.randn(1, 4, 3), torch.zeros(1, 4) > 0)
    assert torch.equal(outside.features, torch.ones(1, 2, 3))
    assert not outside.cells.any()
    with pytest.raises(ValueError, match="finite alpha"):
        features(
            torch.ones(1, 2, 3),
            torch.ones(1, 4, 3),
            torch.ones(1, 4) > 0,
            alpha=math.inf,
            rule="softmax",
        )


def test_every_token_inside_has_one_owner_even_if_it_resembles_none():
    similarity = torch.cat([torch.rand(3, 5, 40), -torch.ones(3, 5, 2)], 2)
    similarity[:, 3] = similarity[:, 1]
    inside = torch.rand(3, 42) < 0.7
    owner = token_owners(part_maps(similarity, inside), inside)
    assert torch.equal(owner >= 0, inside)
    assert not (owner == 3).any()
    assert (owner[:, 40:][inside[:, 40:]] == 0).all()
    assert torch.equal(cells_of(owner, 5), listed(part_maps(similarity, inside), inside))
