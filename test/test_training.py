"""Training: the sum of eq. 17, going on exactly, several processes, and messages that name."""

import csv
import itertools
import multiprocessing
import shlex
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
import yaml
from torch import distributed

pytest.importorskip("transformers", reason="only where requirements.txt is installed")

from ros2_pose import cli
from ros2_pose.body.model import BodyModel
from ros2_pose.config import ConfigError
from ros2_pose.data.datasets import DATASETS
from ros2_pose.data.sample import Sample
from ros2_pose.data.synthetic.pictures import SyntheticPictures
from ros2_pose.networks import movenet_backbone
from ros2_pose.networks.checkpoint import (
    load_checkpoint,
    save_checkpoint,
)
from ros2_pose.networks.registry import layers_class
from ros2_pose.networks.tian.config import TianConfig
from ros2_pose.networks.tian.network import TianNet
from ros2_pose.people import Frame, People
from ros2_pose.training import objective as objective_module
from ros2_pose.training import trainer as trainer_module
from ros2_pose.training.augment import collate, example
from ros2_pose.training.config import TrainingConfig, read_config
from ros2_pose.training.examples import Endless
from ros2_pose.training.objective import Objective, jittered
from ros2_pose.training.trainer import Trainer, TrainingError, start, train

_CPU = torch.device("cpu")
ROOT = Path(__file__).parents[1]
_CONFIGS = sorted((ROOT / "config" / "networks").glob("*.yaml"))


def tiny(**changes):
    return TianConfig(**{"input_size": 96, "width": 32, "decoder_layers": 2, "heads": 4,
                         "points": 1, "ffn": 32, "queries": 6, "roi_width": 16, "roi_layers": 1,
                         **changes})


def settings(**changes):
    return TrainingConfig(**{"steps": 4, "batch": 2, "warmup": 2, "rate": 1e-3,
                             "backbone_rate": 1e-3, "workers": 0, "log_every": 2, **changes})


def made(samples, network=tiny(), config=settings(), rank=0, world=1):
    """A training at its start; the network has learned nothing."""
    torch.manual_seed(0)
    return Trainer(TianNet(network), config, samples, _CPU, rank, world)


def go_on(training, steps):
    """The terms of so many steps."""
    return [training.train_step(batch) for batch in itertools.islice(training.batches(), steps)]


def weights_of(net):
    return {name: weight.detach().clone() for name, weight in net.named_parameters()}


def moved(net, before):
    """Names of the weights that are not what they were."""
    return {name for name, weight in net.named_parameters()
            if not torch.equal(weight, before[name])}


@pytest.fixture(scope="module")
def body():
    return BodyModel.load()


@pytest.fixture(scope="module")
def samples(poses, body):
    """Four pictures of up to two people, and one of nobody."""
    pictures = SyntheticPictures(poses, 1, (96, 96), people=2, model=body)
    nobody = Sample.whole(Frame(np.full((96, 96, 3), 90, np.uint8)), People.nobody())
    return [pictures[i] for i in range(4)] + [nobody]


# --------------------------------------------------------------------------------------- terms


def terms_of(samples, body, network=tiny(), config=settings()):
    torch.manual_seed(0)
    objective = Objective(TianNet(network), config, body)
    return objective(collate([example(sample, 96) for sample in samples]), 0)


def test_the_total_is_that_of_equation_17(samples, body):
    terms = terms_of(samples, body)
    expected = (0.20 * terms["shape"] + 0.25 * terms["pose"] + 0.15 * terms["smpl"]
                + 0.30 * terms["keypoint"] + 0.40 * terms["detection"])
    assert terms["total"].item() == pytest.approx(expected.item(), rel=1e-5)
    assert all(term.isfinite() and term > 0 for term in terms.values())


@pytest.mark.parametrize("network, config", [
    ({}, dict(as_printed=True, regulariser="ceiling")),
    (dict(keypoints="heatmap", features="direct", two_stage=False), {}),
    (dict(backbone="resnet18"), dict(vote_weight=0.1))])
def test_every_variant_has_terms_and_finite_gradients(samples, body, network, config):
    torch.manual_seed(0)
    net = TianNet(tiny(**network))
    objective = Objective(net, settings(**config), body)
    objective(collate([example(sample, 96) for sample in samples]), 0)["total"].backward()
    gradients = {name: weight.grad for name, weight in net.named_parameters()
                 if weight.grad is not None}
    assert all(gradient.isfinite().all() for gradient in gradients.values())
    for part in ("backbone", "decoder", "pyramid", "map_head", "smpl_head"):
        assert any(part in name and gradient.abs().max() > 0
                   for name, gradient in gradients.items()), part


def test_half_precision_is_nearly_the_same(samples, body):
    """As on a GPU; of the half precisions, the one that a CPU is good at.

    Terms of the body differ more if the likeliest of the lift's hypotheses becomes another one.
    """
    with torch.autocast("cpu", torch.bfloat16):
        half = terms_of(samples, body, config=settings(vote_weight=0.1))
    full = terms_of(samples, body, config=settings(vote_weight=0.1))
    for name, term in full.items():
        rel = 0.5 if name in ("pose", "smpl", "shape", "total") else 0.1
        assert half[name].item() == pytest.approx(term.item(), rel=rel), name
    half["total"].backward()


def test_printed_and_repaired_pose_losses_are_two(samples, body):
    printed, repaired = (terms_of(samples, body, config=settings(as_printed=is_printed))["pose"]
                         for is_printed in (True, False))
    assert printed > repaired + 20  # 24 norms that should be one


def test_people_whose_body_is_not_known_teach_keypoints(samples, body):
    flat = [s._replace(people=s.people.with_fields(theta=None, betas=None, joints=None),
                       frame=replace(s.frame, camera=None)) for s in samples]
    terms, full = terms_of(flat, body), terms_of(samples, body)
    assert {"shape", "pose", "smpl"}.isdisjoint(terms)
    for name in ("detection", "keypoint"):
        assert terms[name].item() == pytest.approx(full[name].item(), rel=1e-5)
    mixed = terms_of([samples[0], flat[1]], body)
    assert mixed["pose"].item() == pytest.approx(terms_of(samples[:1], body)["pose"].item(),
                                                 abs=0.5)  # boxes' jitter differs


def test_shapes_that_are_not_known_do_not_count(samples, body):
    posed = [s._replace(people=s.people.with_fields(betas=None)) for s in samples]
    terms, full = terms_of(posed, body), terms_of(samples, body)
    assert terms["shape"] == 0 and terms["pose"].item() == pytest.approx(full["pose"].item())


def test_each_person_is_given_the_query_that_stands_for_it(samples):
    batch = collate([example(sample, 96) for sample in samples[:2]])
    counts = [int((batch.image == i).sum()) for i in (0, 1)]
    queries = torch.arange(2 * 6).view(2, 6, 1).float()
    matches = [(torch.tensor([5, 2][:n]), torch.arange(n).flip(0)) for n in counts]
    found = objective_module._queries_of(queries, matches, batch)[:, 0].tolist()
    expected = [[5.0, 2.0][:n][::-1] for n in counts]
    assert found == expected[0] + [6 + q for q in expected[1]]


def test_boxes_are_off_by_a_little_and_the_same_for_a_seed():
    boxes = torch.tensor([[100.0, 100, 200, 300]]).repeat(4000, 1)
    off = jittered(boxes, 3) - boxes
    assert torch.equal(off, jittered(boxes, 3) - boxes)
    assert not torch.equal(off, jittered(boxes, 4) - boxes)
    middle = (off[:, :2] + off[:, 2:]) / 2
    assert torch.allclose(middle.std(0), torch.tensor([6.0, 12.0]), rtol=0.1)
    assert (middle.mean(0).abs() < 1).all() and ((off[:, 2:] - off[:, :2]).mean(0).abs() < 4).all()
    assert (off.abs() < 200).all()


# ------------------------------------------------------------------------------------ examples


class Asked:
    """Samples that keep a record of who was asked for."""

    def __init__(self, samples):
        self.samples, self.numbers = samples, []

    def __len__(self):
        return len(self.samples)

    def __getitem__(self, number):
        self.numbers.append(number)
        return self.samples[number]


def test_each_sample_comes_once_in_an_epoch_whoever_asks(samples):
    asked = Asked(samples)
    examples = Endless(asked, 96, seed=5)
    images = [examples[number].image for number in range(15)]
    epochs = [asked.numbers[at:at + 5] for at in (0, 5, 10)]
    assert all(sorted(epoch) == [0, 1, 2, 3, 4] for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 1
    assert np.array_equal(Endless(samples, 96, seed=5)[13].image, images[13])
    assert not np.array_equal(Endless(samples, 96, seed=6)[13].image, images[13])


# --------------------------------------------------------------------------------------- steps


def test_a_step_moves_what_learns_and_nothing_else(samples):
    training = made(samples, config=settings(warmup=1))
    before = weights_of(training.net)
    go_on(training, 1)
    changed = moved(training.net, before)
    frozen = {name for name, weight in training.net.named_parameters() if not weight.requires_grad}
    assert frozen and changed.isdisjoint(frozen)
    for part in ("backbone", "encoder", "decoder", "bbox_embed", "class_embed", "pyramid",
                 "map_head", "smpl_head", "log_temperature"):
        assert any(part in name for name in changed), part
    keep = 1 / 11  # a young average is mostly what is now
    for name, mean in training.average.named_parameters():
        expected = keep * before[name] + (1 - keep) * training.net.get_parameter(name)
        assert torch.allclose(mean, expected, atol=1e-6), name


def test_heads_that_are_one_stay_one_and_learn(samples):
    training = made(samples, config=settings(warmup=1))
    detr = training.net.detr
    before = [head.weight.detach().clone() for head in detr.model.decoder.class_embed]
    go_on(training, 1)
    for was, here, there in zip(before, detr.class_embed, detr.model.decoder.class_embed):
        assert here.weight is there.weight and not torch.equal(there.weight, was)
    for here, there in zip(detr.bbox_embed, detr.model.decoder.bbox_embed):
        assert here.layers[2].weight is there.layers[2].weight
        assert there.layers[2].weight.abs().max() > 0  # it was 0


def test_only_what_describes_people_learns_if_asked_for(samples):
    training = made(samples, config=settings(warmup=1, parts="people", batch=1, steps=5))
    before = weights_of(training.net)
    terms = go_on(training, 5)  # one of the pictures shows nobody
    assert sum("keypoint" not in step and step["total"] == 0 for step in terms) == 1
    assert all("detection" not in step for step in terms)
    changed = moved(training.net, before)
    assert {name.split(".")[0] for name in changed} == {
        "pyramid", "map_head", "log_temperature", "smpl_head"}


def test_only_what_finds_people_learns_if_asked_for(samples):
    training = made(samples, config=settings(warmup=1, parts="detection", steps=2))
    before = weights_of(training.net)
    terms = go_on(training, 2)
    assert all(set(step) == {"detection", "total"} for step in terms)
    changed = moved(training.net, before)
    assert changed and all(name.startswith("detr.") for name in changed)


@pytest.mark.parametrize("frozen, learns", [("all", 0.0), ("fine", 0.9), ("nothing", 1.0)])
def test_as_much_of_movenet_learns_as_is_asked_for(frozen, learns):
    backbone = movenet_backbone.MoveNetBackbone(frozen)
    image = torch.rand(1, 3, 64, 64, requires_grad=True)
    sum(level.sum() for level in backbone(255 * image)).backward()
    sizes = [(weight.numel(), weight.grad is not None) for weight in backbone.parameters()]
    share = sum(size for size, learned in sizes if learned) / sum(size for size, _ in sizes)
    assert learns <= share <= min(1.0, learns + 0.1)
    finest = backbone.graph.layer0.weight.grad
    assert (finest is not None) == (frozen == "nothing")


def test_mosaics_show_more_people_the_same_whoever_asks(samples):
    plain, mosaics = (Endless(samples, 128, 0, mosaics=share) for share in (0.0, 1.0))
    counts = [sum(len(source[n].people["boxes"]) for n in range(20)) for source in (plain, mosaics)]
    assert counts[1] > 3 * counts[0]
    assert plain[3].image.shape == (128, 128, 3) and mosaics[3].image.shape == (96, 96, 3)
    again = Endless(samples, 128, 0, mosaics=1.0)
    assert np.array_equal(mosaics[7].image, again[7].image)


def test_a_batch_is_of_mosaics_or_of_none(samples):
    training = made(samples, config=settings(mosaics=0.5, batch=2, steps=20))
    sides = [batch.images.shape[-1] for batch in training.batches()]
    assert set(sides) == {64, 96} and 5 <= sides.count(64) <= 15


def test_a_loss_that_is_not_finite_stops_with_all_its_terms(samples):
    training = made(samples)
    go_on(training, 1)
    with torch.no_grad():
        training.net.map_head.joints.weight[3] = torch.nan
    before = weights_of(training.net)
    with pytest.raises(TrainingError, match="step 1: the loss is not finite") as caught:
        go_on(training, 1)
    for name in ("detection", "keypoint nan", "shape", "pose", "smpl", "total nan", "rate"):
        assert name in str(caught.value), name
    assert moved(training.net, before) == {"map_head.joints.weight"}  # NaN is not equal to itself


# ------------------------------------------------------------------------------------ going on


def same(one, other):
    """Whether two states of trainings are equal to the last bit."""
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


def test_going_on_is_as_not_having_stopped(samples, tmp_path):
    straight = made(samples)
    go_on(straight, 4)
    first = made(samples)
    go_on(first, 2)
    torch.save(first.state(), tmp_path / "state.pt")
    second = made(samples)
    with torch.no_grad():  # whatever it was
        second.net.smpl_head.out.bias.add_(1)
    second.resume(torch.load(tmp_path / "state.pt", weights_only=True))
    assert same(second.state(), first.state())
    go_on(second, 2)
    assert same(second.state(), straight.state())
    assert not same(second.net.state_dict(), first.net.state_dict())


def test_stopped_and_run_again_writes_what_it_would_have_written(samples, tmp_path, monkeypatch):
    train(made(samples), samples[:2], tmp_path / "straight.pt")
    step = Trainer.train_step

    def interrupted(self, batch):
        if self.step == 3:
            raise KeyboardInterrupt
        return step(self, batch)

    out = tmp_path / "new" / "again.pt"
    monkeypatch.setattr(Trainer, "train_step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train(made(samples), samples[:2], out)
    monkeypatch.setattr(Trainer, "train_step", step)
    train(made(samples), samples[:2], out)
    expected, found = (torch.load(path, weights_only=True)
                       for path in (tmp_path / "straight.pt", out))
    assert same(expected, found)
    assert sorted(path.name for path in out.parent.iterdir()) == ["again.csv", "again.pt"]
    rows = list(csv.DictReader(out.with_suffix(".csv").read_text().splitlines()))
    assert rows == list(csv.DictReader((tmp_path / "straight.csv").read_text().splitlines()))
    assert [row["step"] for row in rows] == ["2", "4"]
    assert all(float(row[name]) > 0 for row in rows for name in ("total", "held_back_total"))
    assert load_checkpoint(out, tiny()).config == tiny()


def test_a_training_by_time_ends_when_it_is_over_with_a_low_rate(samples, tmp_path, monkeypatch):
    """A step takes ten seconds of a clock of its own, and the budget is a minute and a half."""
    clock = itertools.count(0, 10)
    monkeypatch.setattr(trainer_module.time, "monotonic", lambda: next(clock))

    def told(self, batch):
        self.step += 1
        self.schedule.step()
        rates.append(self.optimizer.param_groups[0]["lr"])
        return {"total": 1.0}

    rates: list[float] = []
    monkeypatch.setattr(Trainer, "train_step", told)
    training = made(samples, config=settings(steps=1000, log_every=10**6, minutes=1.5, warmup=1))
    train(training, samples[:1], tmp_path / "net.pt")
    assert training.step in (8, 9, 10) and rates[-1] < 0.1 * rates[0]
    assert not (tmp_path / "net.resume.pt").exists()
    steps = [int(row["step"]) for row in
             csv.DictReader((tmp_path / "net.csv").read_text().splitlines())]
    assert len(steps) >= 2 and steps[-1] == training.step  # a checkpoint each minute, and the last


def test_the_log_says_means_of_the_steps_that_have_a_term(samples, tmp_path, monkeypatch):
    terms = iter([{"total": 1.0, "pose": 8.0}, {"total": 3.0}])

    def told(self, batch):
        self.step += 1
        return next(terms)

    monkeypatch.setattr(Trainer, "train_step", told)
    train(made(samples, config=settings(steps=2)), samples[:1], tmp_path / "net.pt")
    row, = csv.DictReader((tmp_path / "net.csv").read_text().splitlines())
    assert (row["total"], row["pose"]) == ("2.0", "8.0")


def test_another_configs_training_does_not_go_on(samples):
    state = made(samples).state()
    with pytest.raises(TrainingError, match="queries: 6 then, 9 now; rate: 0.001 then, 0.002 now"):
        made(samples, tiny(queries=9), settings(rate=2e-3)).resume(state)


# --------------------------------------------------------------------------- several processes


def gradients_of_one_step(samples, rank, world, batch):
    """Of all weights, with boxes as they are: their jitter is each process's own."""
    training = made(samples, config=settings(batch=batch, clip=1e6), rank=rank, world=world)
    with mock.patch.object(objective_module, "jittered", lambda boxes, seed: boxes):
        go_on(training, 1)
    return {name: weight.grad for name, weight in training.net.named_parameters()
            if weight.grad is not None}


def in_a_group(rank, samples, meeting):
    """The same in one of two processes that meet at a file."""
    distributed.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank,
                                   world_size=2, timeout=timedelta(minutes=5))
    gradients = gradients_of_one_step(samples, rank, 2, batch=1)
    distributed.destroy_process_group()
    return gradients


def test_two_processes_learn_what_one_learns_from_both_pictures(samples, tmp_path):
    """As long as both pictures show as many people: each process's terms are means of its own."""
    pair = [s._replace(people=s.people[:1]) for s in samples[:2]]
    assert [len(Endless(pair, 96, 0)[i].people["boxes"]) for i in (0, 1)] == [1, 1]
    expected = gradients_of_one_step(pair, 0, 1, batch=2)
    other = multiprocessing.get_context("spawn").Process(
        target=in_a_group, args=(1, pair, tmp_path / "meeting"))
    other.start()
    found = in_a_group(0, pair, tmp_path / "meeting")
    other.join(60)
    assert other.exitcode == 0 and found.keys() == expected.keys()
    rounding = 1e-5 * max(gradient.norm() for gradient in expected.values())
    for name, gradient in expected.items():
        assert (found[name] - gradient).norm() < 1e-3 * gradient.norm() + rounding, name


# ----------------------------------------------------------------------------------- settings


@pytest.mark.parametrize("path", _CONFIGS, ids=lambda path: path.stem)
def test_shipped_settings_can_be_used(path):
    """A file's head has the command that trains by it."""
    head = path.read_text().splitlines()[0]
    words = shlex.split(head.removeprefix("# "))
    assert words[:3] == ["ros2_pose", "train", f"config/networks/{path.name}"]
    options = cli._parser().parse_args(words[1:])
    network, training = read_config(ROOT / options.config, options.network)
    assert isinstance(network, layers_class(options.network).CONFIG)
    assert isinstance(training, TrainingConfig)
    assert {words[0] for words in (*options.data, options.held_back)} <= set(DATASETS)
    assert options.out.stem == path.stem


@pytest.mark.parametrize("content, message", [
    ({"network": {"qeries": 3}}, "qeries.*queries"),
    ({"training": {"steps": "many"}}, "steps: 'many'"),
    ({"network": {"width": 7}}, "width: 7 is out of range"),
    ({"network": {"box_refine": False}}, "two_stage.*box_refine"),
    ({"nets": {}}, "sections network and training, found 'nets'"),
    ([1], "sections network and training"),
    ("network: [", "expected the node content")])
def test_a_wrong_setting_is_named_with_its_file(tmp_path, content, message):
    path = tmp_path / "net.yaml"
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    with pytest.raises(ConfigError, match=f"(?s){path}.*{message}"):
        read_config(path)
    with pytest.raises(ConfigError, match="missing.yaml"):
        read_config(tmp_path / "missing.yaml")


def test_what_is_not_named_keeps_its_default(tmp_path):
    path = tmp_path / "net.yaml"
    path.write_text("network:\n  queries: 9\ntraining:\n")
    assert read_config(path) == (TianConfig(queries=9), TrainingConfig())


def test_a_checkpoint_to_start_from_learns_on(tmp_path):
    torch.manual_seed(3)
    net = TianNet(tiny())
    save_checkpoint(tmp_path / "net.pt", net, "")
    again = start(TianNet(tiny()), tmp_path / "net.pt")
    for (name, weight), was in zip(again.named_parameters(), net.parameters(), strict=True):
        assert torch.allclose(weight, was, rtol=1e-3, atol=1e-7), name
        assert weight.requires_grad == was.requires_grad


def test_what_a_checkpoint_to_start_from_lacks_is_new_and_named(tmp_path, caplog):
    save_checkpoint(tmp_path / "net.pt", TianNet(tiny()), "")
    changed = start(TianNet(tiny(roi_layers=2)), tmp_path / "net.pt")
    assert "map_head.middle.1" in caplog.text and "detr" not in caplog.text
    was = load_checkpoint(tmp_path / "net.pt").state_dict()
    now = changed.state_dict()
    assert all(torch.equal(now[name], value) for name, value in was.items())
