"""Bestiary, second edition: hard where photographs are hard."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

import pointseg.data.bestiary.write as write
from pointseg.data.bestiary import CATEGORIES, PARTS, draw
from pointseg.data.bestiary.arith import Stream
from pointseg.data.bestiary.bodies import build
from pointseg.data.bestiary.disguise import borrow
from pointseg.data.bestiary.edition import EDITIONS
from pointseg.data.bestiary.individual import Limber, individual
from pointseg.data.bestiary.looks import code_of, rgb, tinted
from pointseg.data.bestiary.species import SPECIES
from pointseg.data.gauge import covered_tokens, touching
from pointseg.structures import InputError

# As the first edition's: it guards that images are the same on every platform, for ever.
REFERENCE = "c441bd6f4e971916364132a7453b48599852cf445c3cecdee8cc3d04be2ad8ce"
SECOND = EDITIONS[2]


@pytest.fixture(scope="module")
def scenes():
    return [draw(3, "train", index) for index in range(48)]


def objects(scene):
    keep = scene.truth.is_thing & ~scene.truth.is_crowd
    return scene.truth.masks[keep].numpy(), scene.truth.label[keep].tolist()


def test_reference_images_have_the_pinned_hash():
    digests = [write.hash_of(draw(0, "train", index)) for index in range(8)]
    assert hashlib.sha256("".join(digests).encode()).hexdigest() == REFERENCE


def test_an_unknown_edition_is_refused_in_one_line():
    with pytest.raises(InputError, match="unknown edition 3"):
        draw(0, "train", 0, edition=3)


def test_segments_parts_and_void_agree(scenes):
    for scene in scenes:
        truth = scene.truth
        assert bool((truth.masks.sum(0) + truth.void.long() == 1).all())
        things = truth.masks[truth.is_thing].any(0)
        assert bool(((truth.parts > 0) == things).all()) and int(truth.parts.max()) <= len(PARTS)
        assert truth.is_thing.tolist() == [CATEGORIES[k].is_thing for k in truth.label.tolist()]


def test_most_objects_have_four_tokens_a_key_point(scenes):
    tokens = [covered_tokens(mask, 8) for scene in scenes for mask in objects(scene)[0]]
    assert 60 < np.median(tokens) < 110


def test_herds_of_one_class_touch_in_most_images(scenes):
    assert 0.3 < np.mean([any(touching(*objects(scene))) for scene in scenes]) < 0.75


def test_ink_runs_around_parts_in_a_quarter_and_nowhere_in_another():
    inks = [draw(1, "tune", index, 64).canvas.ink for index in range(120)]
    share = {kind: inks.count(kind) / len(inks) for kind in ("parts", "outline", "nowhere")}
    assert 0.35 < share["outline"] < 0.65
    assert 0.12 < share["parts"] < 0.38 and 0.12 < share["nowhere"] < 0.38


def test_individuals_of_one_class_differ_in_looks_and_girth_and_a_part_keeps_its_look():
    body = build(SPECIES[0], Stream(0, "train", 0, 16))
    first, second = (individual(body, Stream(0, "train", k, 48), SECOND.individual) for k in (0, 1))
    limbs = [shape for shape in first.shapes if shape.part == 2]
    assert len(limbs) == 2 and limbs[0].look == limbs[1].look
    for a, b, plain in zip(first.shapes, second.shapes, body.shapes):
        assert a.look != b.look and a.capsules[0][4] != b.capsules[0][4]
        assert a.capsules[0][:4] == plain.capsules[0][:4]


def test_a_herd_now_and_then_looks_alike_and_never_poses_alike(scenes):
    for scene in scenes:
        herd = [p for p in scene.plan.placements if p.kin is not None]
        assert len(herd) in (0, 2, 3, 4) and len({p.species for p in herd}) <= 1
        assert len({(p.tilt, p.squash) for p in herd}) == len(herd)


def test_borrowed_looks_change_about_a_third_of_the_ground():
    changed = []
    for index in range(12):
        image = np.full((3, 96, 96), 0.5, np.float32)
        borrow(image, Stream(0, "train", index, 3), SECOND.disguise, SECOND.individual)
        changed.append((image != 0.5).any(0).mean())
    assert 0.25 < np.mean(changed) < 0.5


def test_rocks_and_plants_with_a_body_belong_to_the_ground(scenes):
    with_decoys = [scene for scene in scenes if scene.plan.decoys]
    assert len(with_decoys) > len(scenes) / 2
    for scene in scenes:
        assert scene.canvas.owner.min() == 0


def test_a_turned_hue_keeps_its_brightness_and_a_full_turn_the_colour():
    colour = rgb("2b6496")
    assert code_of(tinted(colour, 0.0, 1.0, 1.0)) == "2b6496"
    assert np.allclose(tinted(colour, 1.0, 1.0, 1.0), colour, atol=0.01)
    weights = np.array([0.299, 0.587, 0.114])
    assert np.isclose(weights @ tinted(colour, 0.3, 0.8, 1.0), weights @ colour, atol=0.01)


def test_a_limber_body_bends_further_around_the_same_middle():
    draws = [Limber(2.0, 0, "train", k, 16).uniform(1.0, 3.0) for k in range(400)]
    assert min(draws) < 0.2 and max(draws) > 3.8 and abs(np.mean(draws) - 2.0) < 0.2
