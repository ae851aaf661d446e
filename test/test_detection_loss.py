"""L_DET: the assignment against trying all, the terms against those of `transformers`, and who is
nobody."""

import itertools

import pytest
import torch

pytest.importorskip("transformers", reason="only where requirements.txt is installed")

from transformers.loss.loss_for_object_detection import generalized_box_iou, sigmoid_focal_loss

from ros2_pose.networks.tian.network import Detected
from ros2_pose.networks.tian.roi import corners
from ros2_pose.training.detection import (
    detection_loss,
    focal_loss,
    generalised_iou,
    is_covered,
    layer_loss,
    match,
)

_NOBODY = torch.zeros(0, 4)


def boxes(count, seed=0):
    """(count, 4) by centre and size, in parts of the image."""
    random = torch.Generator().manual_seed(seed)
    centre, size = torch.rand(2, count, 2, generator=random)
    return torch.cat([centre, 0.05 + 0.4 * size], 1)


def layer(queries, seed=0, images=None):
    shape = (queries,) if images is None else (images, queries)
    logits = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    return logits, boxes(logits.numel(), seed + 100).view(*shape, 4)


def whole(people, ignored=_NOBODY):
    return people, ignored


# ---------------------------------------------------------------------------------- matching


def costs(logits, guesses, people):
    """(Q, P) as Deformable DETR's, number by number."""
    p = logits.sigmoid()
    person = 0.25 * (1 - p)**2 * -p.log() - 0.75 * p**2 * -(1 - p).log()
    apart = (guesses[:, None] - people).abs().sum(2)
    return 2 * person[:, None] + 5 * apart - 2 * generalized_box_iou(corners(guesses),
                                                                     corners(people))


@pytest.mark.parametrize("seed", range(4))
def test_no_assignment_costs_less(seed):
    one, people = layer(6, seed), boxes(3, seed + 50)
    cost = costs(*one, people)
    least = min(sum(cost[q, p] for p, q in enumerate(chosen))
                for chosen in itertools.permutations(range(6), 3))
    query, person = match(*one, people)
    assert sorted(person.tolist()) == [0, 1, 2]
    assert len(set(query.tolist())) == 3
    assert cost[query, person].sum().item() == pytest.approx(least.item(), rel=1e-5)


def test_several_queries_may_stand_for_one_person():
    one, people = layer(12), boxes(3, 50)
    query, person = match(*one, people, copies=3)
    assert sorted(person.tolist()) == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert len(set(query.tolist())) == 9
    cost = costs(*one, people)
    for (q, p), (other, r) in itertools.combinations(zip(query, person), 2):
        assert cost[q, p] + cost[other, r] <= cost[q, r] + cost[other, p] + 1e-5
    assert len(match(*one, people, copies=10)[0]) == 12  # there are no more


def test_the_order_of_queries_and_of_people_changes_nothing():
    (logits, guesses), people = layer(8, images=2), [boxes(3, 1), boxes(2, 2)]
    loss, matches = layer_loss(logits, guesses, [whole(p) for p in people])
    order = torch.randperm(8, generator=torch.Generator().manual_seed(1))
    again, others = layer_loss(logits[:, order], guesses[:, order],
                               [whole(people[0].flip(0)), whole(people[1])])
    assert again.item() == pytest.approx(loss.item(), rel=1e-5)
    pairs = [sorted(zip(query.tolist(), person.tolist())) for query, person in matches]
    back = [sorted(zip(order[query].tolist(), person.tolist())) for query, person in others]
    assert back[1] == pairs[1]
    assert back[0] == sorted((query, 2 - person) for query, person in pairs[0])


def test_a_network_gone_astray_is_still_matched():
    logits, guesses = layer(4)
    logits[1], guesses[2] = torch.nan, torch.inf
    assert set(match(logits, guesses, boxes(2))[0].tolist()) == {0, 3}


# -------------------------------------------------------------------------------- terms


@pytest.mark.parametrize("other, expected", [
    ([0, 0, 2, 2], 1.0),
    ([1, 0, 3, 2], 2 / 6),  # the hull is the union
    ([1, 1, 3, 3], 1 / 7 - 2 / 9),
    ([0, 0, 1, 1], 1 / 4),
    ([2, 0, 4, 2], 0.0),  # side by side
    ([4, 0, 6, 2], -4 / 12),  # apart
    ([2, 2, 2, 2], 0.0)])  # a point
def test_generalised_iou_by_hand(other, expected):
    found = generalised_iou(torch.tensor([[0.0, 0, 2, 2]]), torch.tensor([other]).float())
    assert found.item() == pytest.approx(expected)


def test_generalised_iou_is_that_of_transformers():
    a, b = corners(boxes(7)), corners(boxes(5, 1))
    assert torch.allclose(generalised_iou(a, b), generalized_box_iou(a, b), atol=1e-6)


def test_focal_loss_is_that_of_transformers():
    (logits, guesses), people = layer(9), boxes(2, 1)
    query, _ = match(logits, guesses, people)
    target = torch.zeros(9)
    target[query] = 1
    expected = sigmoid_focal_loss(logits[None], target[None], 1) * 9  # theirs is a mean
    ours = focal_loss(logits, guesses, _NOBODY, query)
    assert ours.item() == pytest.approx(expected.item(), rel=1e-5)


def test_terms_have_the_weights_of_deformable_detr():
    logits, guesses = layer(5, images=1)
    people = boxes(2, 1)
    loss, ((query, person),) = layer_loss(logits, guesses, [whole(people)])
    guess, goal = guesses[0, query], people[person]
    focal = focal_loss(logits[0], guesses[0], _NOBODY, query)
    overlap = 2 - generalized_box_iou(corners(guess), corners(goal)).trace()
    expected = (2 * focal + 5 * (guess - goal).abs().sum() + 2 * overlap) / 2
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)


def test_who_is_found_exactly_costs_next_to_nothing():
    people = boxes(3)
    logits = torch.tensor([[-20.0, 20, 20, -20, 20]])
    guesses = boxes(5, 7)[None]
    guesses[0, [1, 2, 4]] = people
    loss, _ = layer_loss(logits, guesses, [whole(people)])
    assert abs(loss.item()) < 1e-5
    guesses[0, 1, 0] += 0.1
    assert layer_loss(logits, guesses, [whole(people)])[0] > 0.1


def test_layers_and_proposals_are_added():
    truths = [whole(boxes(2, 1)), whole(boxes(1, 2))]
    first, last, proposals = layer(6, 1, 2), layer(6, 2, 2), layer(20, 3, 2)
    found = Detected([first, last], proposals, torch.zeros(2, 6, 8), [])
    loss, matches = detection_loss(found, truths)
    parts = [layer_loss(*first, truths)[0], layer_loss(*last, truths)[0],
             layer_loss(*proposals, truths, copies=4)[0]]
    assert loss.item() == pytest.approx(sum(parts).item(), rel=1e-5)
    expected = layer_loss(*last, truths)[1]
    assert all(torch.equal(a, b) for (a, _), (b, _) in zip(matches, expected))
    alone, _ = detection_loss(found._replace(proposals=None), truths)
    assert alone.item() == pytest.approx(sum(parts[:2]).item(), rel=1e-5)


# ---------------------------------------------------------------------------- who is nobody


def pull_on_logits(truth):
    """(4,) gradient of a picture's loss; query 0 stands for the only person, 2 and 3 are found
    mostly inside the box (0.5, 0.5) to (1, 1), 3 by a bit more than half."""
    logits = torch.full((1, 4), 0.5).requires_grad_()
    guesses = torch.tensor([[[0.2, 0.2, 0.2, 0.2], [0.3, 0.7, 0.1, 0.2], [0.8, 0.8, 0.1, 0.2],
                             [0.52, 0.7, 0.2, 0.1]]])
    loss, ((query, _),) = layer_loss(logits, guesses, [truth])
    assert query.tolist() == ([0] if len(truth[0]) else [])
    return torch.autograd.grad(loss, logits)[0][0]


_PERSON, _CROWD = torch.tensor([[0.2, 0.2, 0.2, 0.2]]), torch.tensor([[0.75, 0.75, 0.5, 0.5]])


def test_who_is_not_matched_is_nobody_where_everyone_is_labelled():
    pull = pull_on_logits(whole(_PERSON))
    assert pull[0] < 0 and (pull[1:] > 0).all()


def test_who_is_in_an_ignored_box_may_be_somebody():
    pull = pull_on_logits(whole(_PERSON, _CROWD))
    assert pull[0] < 0 and pull[1] > 0 and (pull[2:] == 0).all()


def test_bystanders_are_not_nobody_where_not_everyone_is_labelled():
    pull = pull_on_logits((_PERSON, None))
    assert pull[0] < 0 and (pull[1:] == 0).all()


def test_pictures_without_people():
    assert (pull_on_logits(whole(_NOBODY)) > 0).all()
    assert (pull_on_logits((_NOBODY, None)) == 0).all()
    both = layer(5, images=2)
    loss, ((none, _), (one, _)) = layer_loss(*both, [whole(_NOBODY), whole(boxes(1))])
    assert loss.isfinite() and (len(none), len(one)) == (0, 1)
    assert none.dtype == torch.long


def test_a_matched_query_counts_in_an_ignored_box_too():
    ignored = torch.tensor([[0.5, 0.5, 1.0, 1.0]])
    assert focal_loss(torch.tensor([0.3]), _PERSON, ignored, torch.tensor([0])) > 0


def test_covered_is_who_lies_mostly_inside():
    crowd = torch.tensor([[0.25, 0.5, 0.5, 1.0], [0.9, 0.1, 0.2, 0.2]])
    guesses = torch.tensor([[0.52, 0.5, 0.2, 0.2], [0.48, 0.5, 0.2, 0.2], [0.9, 0.1, 0.1, 0.1],
                            [0.8, 0.8, 0.1, 0.1], [0.5, 0.5, 1.0, 1.0]])
    assert is_covered(guesses, crowd).tolist() == [False, True, True, False, False]
    assert not is_covered(guesses, _NOBODY).any()


def test_gradients_are_finite_whatever_is_detected():
    logits = torch.tensor([[80.0, -80, 0, 5, -5]]).requires_grad_()
    centres = torch.tensor([[[0, 0, 0, 0], [1, 1, 1, 1], [0.5, 0.5, 0, 0.3], [0.5, 0.5, 2, 2],
                             [0.3, 0.3, 0.1, 0.1]]]).requires_grad_()
    truth = whole(torch.cat([boxes(2), torch.tensor([[0.3, 0.3, 0.1, 0.1]])]))
    loss, _ = layer_loss(logits, centres, [truth])
    rotation_priors = torch.autograd.grad(loss, (logits, centres))
    assert loss.isfinite() and all(pull.isfinite().all() for pull in rotation_priors)
