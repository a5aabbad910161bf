"""Views of an image: what was found in a mirror or in another size comes back to its place."""

import torch

from pointseg.lab.tta import pooled, predictions_of_views, unflipped
from pointseg.structures import Instances, Prediction


class Bright:
    """Finds the bright square of an image, in whatever view it is shown; sure of itself by its
    width."""

    def predict(self, images, sizes):
        out = []
        for row, image in enumerate(images):
            mask = image[0] > 0.5
            rows, columns = mask.any(1).nonzero()[:, 0], mask.any(0).nonzero()[:, 0]
            box = torch.tensor([[columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]]).float()
            instances = Instances(
                mask[None], torch.tensor([image.shape[-1] / 100]), torch.tensor([2]), box
            )
            out.append(Prediction(row, instances=instances))
        return out


def image():
    image = torch.zeros(1, 3, 16, 24)
    image[..., 4:8, 2:10] = 1
    return image


def test_a_mirrored_answer_is_mirrored_back():
    instances = Bright().predict(image().flip(-1), None)[0].instances
    back, straight = unflipped(instances, 24), Bright().predict(image(), None)[0].instances
    assert torch.equal(back.boxes, straight.boxes) and torch.equal(back.masks, straight.masks)


def test_all_views_agree_on_one_object_in_its_own_place():
    pooled_views = predictions_of_views(Bright(), image(), [(16, 24)], (1.0, 2.0), (False, True))[0]
    assert (
        len(pooled_views.masks) == 1 and pooled_views.scores[0] == 0.48
    )  # the widest view is the surest
    assert pooled_views.boxes[0].tolist() == [2, 4, 10, 8]
    assert torch.equal(pooled_views.masks[0], image()[0, 0] > 0.5)


def test_pooling_keeps_neighbours_and_other_classes():
    masks = torch.zeros(4, 2, 2, dtype=torch.bool)
    boxes = torch.tensor([[0, 0, 10, 10], [1, 0, 11, 10], [20, 0, 30, 10], [0, 0, 10, 10]]).float()
    every = Instances(masks, torch.tensor([0.5, 0.9, 0.3, 0.2]), torch.tensor([1, 1, 1, 2]), boxes)
    assert pooled([every]).boxes.tolist() == boxes[[1, 2, 3]].tolist()
