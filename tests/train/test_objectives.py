"""The objectives against the reference's numbers and against a literal reading of PAPER.md."""

import json
import math
from functools import partial

import numpy as np
import pytest
import torch
from tiny import tiny_r2plus1d
from torch import Tensor, nn

from lib.augment.scene import SCENE_AUGMENTATIONS, SceneAugmentation, mixup
from lib.config import PROJECT_ROOT
from lib.models.networks import build_model
from lib.train.objectives import (
    ClipTensors,
    FixMatchObjective,
    ObjectiveOutput,
    SupervisedObjective,
    UDAObjective,
)

GOLDEN = PROJECT_ROOT / "tests/golden"
SPEC = json.loads((GOLDEN / "objectives.json").read_text())
CASES = {case["case"]: case for case in SPEC["cases"]}
SEMI = [name for name, case in CASES.items() if case["framework"] in ("fixmatch", "uda")]
SUPERVISED = [name for name in CASES if name not in SEMI]
CLASSES = SPEC["num_classes"]
ALWAYS, NEVER = 1.0, 0.0


class StubNetwork(nn.Module):
    """Its logits are the first values of a clip; the distillation head is logits @ matrix."""

    def __init__(self, teacher_matrix: Tensor | None = None):
        super().__init__()
        self.teacher_matrix = teacher_matrix
        self.calls = []

    def forward(self, clips: Tensor, with_teacher: bool = False):
        self.calls.append(len(clips))
        logits = clips.flatten(1)[:, :CLASSES]
        return (logits, logits @ self.teacher_matrix) if with_teacher else logits


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def one_hot(labels) -> Tensor:
    return nn.functional.one_hot(torch.as_tensor(labels), CLASSES).double()


def call(objective, model, labeled, unlabeled=None, seed=0, weight=1.0) -> ObjectiveOutput:
    return objective(model, labeled, unlabeled, generator(seed), unlabeled_weight=weight)


def value(step: ObjectiveOutput, name: str) -> float:
    total, count = step.stats[name]
    return (total / count).item()


# --- The reference's numbers ----------------------------------------------------------------------


@pytest.fixture(scope="module", params=["small copy", "shared"])
def arrays(request, shared) -> dict[str, Tensor]:
    """The batches: the part that is kept here, filled up with zeros, or the whole ones."""
    path = GOLDEN / "objectives.npz"
    if request.param == "shared":
        path = shared("golden/objectives.npz")
    with np.load(path) as file:
        found = {name: torch.from_numpy(file[name]) for name in file.files}
    for name, clips in found.items():
        if clips.dim() == 5 and clips.shape[2] == 1:
            case = name.split("_")[0]
            found[name] = torch.zeros(
                len(clips), 1, *found[f"{case}_human_mask"].shape[1:]
            ).double()
            found[name][:, :, :1] = clips
    return found


@pytest.mark.parametrize("case", SEMI)
def test_semi_supervised_losses_equal_the_reference(arrays, case):
    golden = CASES[case]
    data = {name.split("_", 1)[1]: array for name, array in arrays.items() if name.startswith(case)}
    labeled = ClipTensors(data["labeled"], None, None, one_hot(data["labels"]))
    unlabeled = ClipTensors(
        data["weak"],
        data["strong"],
        data["human_mask"].unsqueeze(1).double(),
        torch.zeros(len(data["weak"]), CLASSES).double(),
        data.get("imagenet_prob"),
    )
    objective = {"fixmatch": FixMatchObjective, "uda": UDAObjective}[golden["framework"]](
        unlabeled_scene_p=ALWAYS if golden["actor_cutmix_drawn"] else NEVER,
        distillation_weight=float(golden["distill"]),
    )
    step = call(objective, StubNetwork(data.get("distill_W")), labeled, unlabeled)

    near = {"abs": 1e-9, "rel": 0}
    assert value(step, "loss/labeled") == pytest.approx(golden["loss_cls_labeled"], **near)
    assert value(step, "loss/unlabeled") == pytest.approx(golden["loss_cls_unlabeled"], **near)
    assert step.loss.item() == pytest.approx(golden["loss"], **near)
    if golden["distill"]:
        assert value(step, "loss/distillation") == pytest.approx(golden["loss_distill"], **near)
    assert step.stats["ssl/mask_rate"][0].item() == golden["num_select"]
    drawn = generator()
    objective.mix_labeled(labeled, drawn)
    mixed = objective.mix_unlabeled(unlabeled, drawn)
    torch.testing.assert_close(mixed.clips, data["strong_after_actor_cutmix"], rtol=0, atol=1e-12)


@pytest.mark.parametrize("case", SUPERVISED)
def test_strongly_augmented_supervised_losses_equal_the_reference(arrays, case):
    labeled = ClipTensors(
        arrays[f"{case}_weak"],
        arrays[f"{case}_strong"],
        arrays[f"{case}_human_mask"].unsqueeze(1).double(),
        one_hot(arrays[f"{case}_labels"]),
    )
    drawn = CASES[case]["actor_cutmix_drawn"]
    step = call(SupervisedObjective("strong", ALWAYS if drawn else NEVER), StubNetwork(), labeled)
    assert step.loss.item() == pytest.approx(CASES[case]["loss"], abs=1e-9, rel=0)


# --- A literal reading of the paper ---------------------------------------------------------------


def read_log_softmax(logits: np.ndarray) -> np.ndarray:
    return logits - logits.max() - math.log(np.exp(logits - logits.max()).sum())


def read_cross_entropy(logits: np.ndarray, target: np.ndarray) -> float:
    return -sum(t * p for t, p in zip(target, read_log_softmax(logits), strict=True))


def read_mix(weak, strong, mask):
    """Mix clip by clip and pixel by pixel (PAPER.md, "ActorCutMix" and "mixed label")."""
    batch = len(weak)
    is_left = []
    for i in range(batch):
        area = mask[i].sum()
        is_left.append(area in (0, mask[i].size) or i == batch - 1 - i)
    clips, weights = strong.copy(), []
    for i in range(batch):
        partner = batch - 1 - i
        if is_left[i]:
            weights.append(1.0)
            continue
        for place in np.ndindex(weak[i].shape):
            person = mask[i][(0, *place[1:])]
            partners_person = 1 if is_left[partner] else mask[partner][(0, *place[1:])]
            if person:
                clips[i][place] = weak[i][place]
            elif partners_person:
                clips[i][place] = 0
            else:
                clips[i][place] = weak[partner][place]
        weights.append(1 - (1 - mask[i].sum() / mask[i].size) ** 4)
    return clips, weights


def read_targets(targets, weights):
    batch = len(targets)
    return [w * targets[i] + (1 - w) * targets[batch - 1 - i] for i, w in enumerate(weights)]


def read_supervised(clips, targets) -> float:
    rows = clips.reshape(len(clips), -1)[:, :CLASSES]
    return sum(map(read_cross_entropy, rows, targets)) / len(clips)


def read_unlabeled(kind: str, weak, clips, weights, threshold: float, temperature: float) -> float:
    """FixMatch: hard labels, divided by all clips. UDA: sharpened, by the confident ones."""
    pseudo, selected = [], []
    for clip in weak:
        logits = clip.reshape(-1)[:CLASSES]
        probabilities = np.exp(read_log_softmax(logits))
        selected.append(probabilities.max() >= threshold)
        if kind == "fixmatch":
            pseudo.append(np.eye(CLASSES)[probabilities.argmax()])
        else:
            pseudo.append(np.exp(read_log_softmax(logits / temperature)))
    targets = read_targets(pseudo, weights)
    losses = [
        read_cross_entropy(clip.reshape(-1)[:CLASSES], target)
        for clip, target, is_selected in zip(clips, targets, selected, strict=True)
        if is_selected
    ]
    if not losses:
        return 0.0
    return sum(losses) / (len(clips) if kind == "fixmatch" else len(losses))


def random_batch(rng: np.random.Generator) -> ClipTensors:
    """Clips (B, 2, 2, 2, 4) with masks of all kinds: empty, full, a pixel, anything."""
    batch = int(rng.integers(1, 7))
    weak, strong = rng.normal(0, rng.uniform(0.2, 4), size=(2, batch, 2, 2, 2, 4))
    mask = rng.random((batch, 1, 2, 2, 4)) < rng.choice([0, 0.3, 0.8, 1], size=(batch, 1, 1, 1, 1))
    return ClipTensors(
        *map(torch.from_numpy, (weak, strong, mask.astype(float))),
        one_hot(rng.integers(0, CLASSES, batch)),
    )


def as_numpy(batch: ClipTensors):
    return [batch.weak.numpy(), batch.strong.numpy(), batch.person_mask.numpy()]


@pytest.mark.parametrize("kind", ["fixmatch", "uda"])
def test_objectives_equal_a_literal_reading_on_random_batches(kind):
    rng = np.random.default_rng(0)
    seen = {"nothing selected": 0, "left": 0, "odd": 0, "mixed": 0, "not drawn": 0}
    for seed in range(600):
        labeled, unlabeled = random_batch(rng), random_batch(rng)
        threshold, temperature = rng.uniform(0.15, 0.99), rng.uniform(0.2, 2)
        labeled_p, unlabeled_p = rng.choice([NEVER, ALWAYS], size=2)
        view = rng.choice(["weak", "strong"])
        weight = rng.uniform(0, 3)
        settings = {
            "labeled_view": view,
            "labeled_scene_p": labeled_p,
            "confidence_threshold": threshold,
            "unlabeled_scene_p": unlabeled_p,
        }
        if kind == "uda":
            objective = UDAObjective(**settings, temperature=temperature)
        else:
            objective = FixMatchObjective(**settings)
        step = call(objective, StubNetwork(), labeled, unlabeled, seed, weight)

        weak, strong, mask = as_numpy(labeled)
        clips, weights = (weak if view == "weak" else strong), [1.0] * len(weak)
        if labeled_p:
            clips, weights = read_mix(weak, clips, mask)
        by_labels = read_supervised(clips, read_targets(labeled.targets.numpy(), weights))
        weak, strong, mask = as_numpy(unlabeled)
        clips, weights = strong, [1.0] * len(weak)
        if unlabeled_p:
            clips, weights = read_mix(weak, strong, mask)
        without = read_unlabeled(kind, weak, clips, weights, threshold, temperature)

        assert value(step, "loss/labeled") == pytest.approx(by_labels, abs=1e-12)
        assert value(step, "loss/unlabeled") == pytest.approx(without, abs=1e-12)
        assert step.loss.item() == pytest.approx(by_labels + weight * without, abs=1e-12)
        seen["nothing selected"] += step.stats["ssl/mask_rate"][0].item() == 0
        seen["odd"] += len(weak) % 2
        seen["not drawn"] += not unlabeled_p
        seen["mixed"] += min(weights) < 1
        seen["left"] += bool(unlabeled_p) and 1.0 in weights
    assert min(seen.values()) > 20, seen


@pytest.mark.parametrize("view", ["weak", "strong"])
@pytest.mark.parametrize("scene_p", [NEVER, ALWAYS])
def test_supervised_equals_a_literal_reading_on_random_batches(view, scene_p):
    rng = np.random.default_rng(1)
    for seed in range(60):
        batch = random_batch(rng)
        step = call(SupervisedObjective(view, scene_p), StubNetwork(), batch, seed=seed)
        weak, strong, mask = as_numpy(batch)
        clips, weights = (weak if view == "weak" else strong), [1.0] * len(weak)
        if scene_p:
            clips, weights = read_mix(weak, clips, mask)
        expected = read_supervised(clips, read_targets(batch.targets.numpy(), weights))
        assert step.loss.item() == pytest.approx(expected, abs=1e-12)


# --- Gradients and the pass through the network ---------------------------------------------------


@pytest.mark.parametrize("kind", [FixMatchObjective, UDAObjective])
@pytest.mark.parametrize("scene_p", [NEVER, ALWAYS])
def test_no_gradient_flows_into_the_pseudo_labels(kind, scene_p):
    """The weak views' logits are targets alone: moving them must not lower the loss."""
    batch = random_batch(np.random.default_rng(6))
    assert len(batch.weak) >= 3
    shift = torch.zeros(CLASSES, dtype=torch.float64, requires_grad=True)

    class Shifted(StubNetwork):
        def forward(self, clips):  # labelled, weak, strong
            logits = super().forward(clips)
            return logits + shift * (torch.arange(len(clips)) // len(batch.weak) == 1).view(-1, 1)

    step = call(kind(confidence_threshold=0.15, unlabeled_scene_p=scene_p), Shifted(), batch, batch)
    assert value(step, "loss/unlabeled") > 0
    step.loss.backward()
    assert shift.grad.tolist() == [0] * CLASSES


@pytest.mark.parametrize("kind", [FixMatchObjective, UDAObjective])
def test_only_confident_strong_views_are_learned_from(kind):
    strong_logits = torch.zeros(2, 1, 1, 1, CLASSES, dtype=torch.float64, requires_grad=True)
    weak = torch.zeros(2, 1, 1, 1, CLASSES, dtype=torch.float64)
    weak[0, ..., 2] = 10  # the first clip alone is confident
    unlabeled = ClipTensors(weak, strong_logits, None, one_hot([2, 2]))
    labeled = ClipTensors(torch.zeros_like(weak), None, None, one_hot([0, 0]))
    call(kind(unlabeled_scene_p=NEVER), StubNetwork(), labeled, unlabeled).loss.backward()
    gradient = strong_logits.grad.flatten(1)
    assert gradient[0].argmin() == 2 and gradient[0, 2] < 0  # towards the pseudo-label
    assert gradient[1].tolist() == [0] * CLASSES


@pytest.mark.parametrize("kind", [FixMatchObjective, UDAObjective])
def test_one_joint_forward_pass(kind):
    model = StubNetwork()
    rng = np.random.default_rng(3)
    labeled, unlabeled = random_batch(rng), random_batch(rng)
    call(kind(), model, labeled, unlabeled)
    assert model.calls == [len(labeled.weak) + 2 * len(unlabeled.weak)]


@pytest.mark.parametrize("kind", [FixMatchObjective, UDAObjective])
def test_weak_views_may_have_a_pass_of_their_own(kind):
    rng = np.random.default_rng(3)
    labeled, unlabeled = random_batch(rng), random_batch(rng)
    together = call(kind(confidence_threshold=0.5), StubNetwork(), labeled, unlabeled)
    model = StubNetwork()
    apart = call(kind(confidence_threshold=0.5, joint_forward=False), model, labeled, unlabeled)
    assert model.calls == [len(labeled.weak) + len(unlabeled.weak), len(unlabeled.weak)]
    assert apart.stats == together.stats and apart.loss == together.loss


@pytest.mark.parametrize(
    "build, is_equal",
    [(partial(build_model, "r3d_small"), True), (tiny_r2plus1d, False)],
    ids=["group norm", "batch norm"],
)
def test_only_batch_norm_tells_a_pass_of_their_own(build, is_equal):
    data = torch.Generator().manual_seed(0)
    weak, strong = torch.randn(2, 4, 3, 4, 16, 16, generator=data)
    batch = ClipTensors(weak, strong, None, one_hot([0, 1, 2, 0]).float())
    found = []
    for joint_forward in (True, False):
        torch.manual_seed(0)
        model = build(CLASSES, dropout=0.0).train()
        objective = FixMatchObjective(
            confidence_threshold=0.01, unlabeled_scene_p=NEVER, joint_forward=joint_forward
        )
        call(objective, model, batch, batch).loss.backward()
        found.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
    assert torch.allclose(*found, rtol=1e-4, atol=1e-6) == is_equal


def test_distillation_learns_from_the_weak_views():
    rng = np.random.default_rng(4)
    labeled, unlabeled = random_batch(rng), random_batch(rng)
    matrix = torch.from_numpy(rng.normal(size=(CLASSES, 11)))
    teacher = torch.from_numpy(rng.dirichlet(np.ones(11), size=len(unlabeled.weak)))
    unlabeled = unlabeled._replace(imagenet_targets=teacher)
    plain = call(FixMatchObjective(unlabeled_scene_p=ALWAYS), StubNetwork(), labeled, unlabeled)
    step = call(
        FixMatchObjective(unlabeled_scene_p=ALWAYS, distillation_weight=2.5),
        StubNetwork(matrix),
        labeled,
        unlabeled,
    )
    rows = unlabeled.weak.numpy().reshape(len(teacher), -1)[:, :CLASSES] @ matrix.numpy()
    expected = np.mean(
        [read_cross_entropy(*pair) for pair in zip(rows, teacher.numpy(), strict=True)]
    )
    assert value(step, "loss/distillation") == pytest.approx(expected)
    assert step.loss.item() == pytest.approx(plain.loss.item() + 2.5 * expected)


# --- What is logged -------------------------------------------------------------------------------


def clips_of(*logits: list[float]) -> Tensor:
    return torch.tensor(logits, dtype=torch.float64).view(len(logits), 1, 1, 1, -1)


def logits_for(*classes: int, sure: float = 9.0) -> Tensor:
    return clips_of(*(sure * np.eye(CLASSES)[list(classes)]).tolist())


def test_accuracies_are_logged_as_sums_and_counts():
    labeled = ClipTensors(logits_for(0, 1, 2), None, None, one_hot([0, 1, 5]))
    weak = torch.cat([logits_for(3, 4, 4), logits_for(6, sure=0.5)])  # the last is not confident
    targets = one_hot([3, 4, 0, 6])
    targets[1] = 0  # its class is not known
    unlabeled = ClipTensors(weak, weak, None, targets)
    stats = call(
        FixMatchObjective(unlabeled_scene_p=NEVER), StubNetwork(), labeled, unlabeled
    ).stats
    logged = {name: (total.item(), count.item()) for name, (total, count) in stats.items()}
    assert logged["train/top1_clip"] == (2, 3)
    assert logged["ssl/mask_rate"] == (3, 4)
    assert logged["ssl/pseudo_label_accuracy"] == (1, 2)
    assert set(logged) >= {"loss/labeled", "loss/unlabeled"}
    assert all(not part.requires_grad for pair in stats.values() for part in pair)


def test_accuracy_of_mixed_labelled_clips_is_that_of_their_own_labels():
    """The partner has seven tenths of each clip, and the network says the partner's class."""
    partner_wins = SceneAugmentation("mixup of 0.3", lambda *views: mixup(*views, 0.3))
    labeled = ClipTensors(logits_for(0, 1), logits_for(0, 1), None, one_hot([0, 1]))
    unlabeled = ClipTensors(logits_for(3, 4), logits_for(3, 4), None, one_hot([3, 4]))
    alone = SupervisedObjective(labeled_scene_p=ALWAYS, scene=partner_wins)
    for step in (
        call(alone, StubNetwork(), labeled),
        call(
            FixMatchObjective(labeled_scene_p=ALWAYS, unlabeled_scene_p=NEVER, scene=partner_wins),
            StubNetwork(),
            labeled,
            unlabeled,
        ),
    ):
        assert value(step, "train/top1_clip") == 0


def test_the_unlabeled_labels_are_only_compared_with():
    rng = np.random.default_rng(8)
    labeled, unlabeled = random_batch(rng), random_batch(rng)
    other = unlabeled._replace(targets=unlabeled.targets.roll(1, dims=1))
    for kind in (FixMatchObjective, UDAObjective):
        objective = kind(confidence_threshold=0.15, unlabeled_scene_p=ALWAYS)
        first, second = (call(objective, StubNetwork(), labeled, u) for u in (unlabeled, other))
        assert torch.equal(first.loss, second.loss)


# --- Other scene augmentations and streams --------------------------------------------------------


@pytest.mark.parametrize("name", SCENE_AUGMENTATIONS)
def test_any_scene_augmentation_can_be_used(name):
    rng = np.random.default_rng(5)
    labeled, unlabeled = random_batch(rng), random_batch(rng)
    scene = SCENE_AUGMENTATIONS[name]
    objective = FixMatchObjective("strong", ALWAYS, scene, 0.15, unlabeled_scene_p=ALWAYS)
    step = call(objective, StubNetwork(), labeled, unlabeled)
    never = FixMatchObjective("strong", NEVER, scene, 0.15, unlabeled_scene_p=NEVER)
    assert step.loss.isfinite()
    assert step.loss.item() != call(never, StubNetwork(), labeled, unlabeled).loss.item()


def test_views_that_are_not_needed_may_be_missing():
    rng = np.random.default_rng(2)
    batch = random_batch(rng)
    call(SupervisedObjective("weak"), StubNetwork(), batch._replace(strong=None, person_mask=None))
    call(SupervisedObjective("strong"), StubNetwork(), batch._replace(weak=None, person_mask=None))
    call(
        FixMatchObjective(unlabeled_scene_p=NEVER),
        StubNetwork(),
        batch._replace(strong=None, person_mask=None),
        batch._replace(person_mask=None),
    )


def test_the_labelled_and_the_unlabelled_batch_are_mixed_by_their_own_draws():
    """With p = 1/2 each of the four combinations occurs."""
    batches = []
    for seed in (0, 1):
        weak, strong = torch.randn(2, 4, 2, 2, 2, 4, generator=generator(seed)).double()
        mask = torch.zeros(4, 1, 2, 2, 4).double()
        mask[..., :2] = 1
        batches.append(ClipTensors(weak, strong, mask, one_hot([0, 1, 2, 3])))
    objective = FixMatchObjective("strong", 0.5, confidence_threshold=0.15, unlabeled_scene_p=0.5)
    losses = {
        tuple(round(value(step, name), 9) for name in ("loss/labeled", "loss/unlabeled"))
        for step in (call(objective, StubNetwork(), *batches, seed) for seed in range(60))
    }
    assert len({first for first, _ in losses}) == 2 == len({second for _, second in losses})
    assert len(losses) == 4


@pytest.mark.parametrize("kind", [FixMatchObjective, UDAObjective], ids=lambda kind: kind.__name__)
def test_losses_are_single_precision_where_the_network_computes_in_half(kind):
    """Soft targets and one-hot labels come in single precision, and so do the means of the log."""
    clips = random_batch(np.random.default_rng(0))
    clips = ClipTensors(*(None if x is None else x.float() for x in clips))
    soft = torch.full_like(clips.targets, 1 / clips.targets.shape[1])
    network = nn.Sequential(nn.Flatten(), nn.LazyLinear(clips.targets.shape[1]))
    found = {}
    for is_half in (False, True):
        torch.manual_seed(0)
        with torch.autocast("cpu", torch.bfloat16, enabled=is_half):
            step = call(
                kind(unlabeled_scene_p=0.0), network, clips, clips._replace(soft_targets=soft)
            )
        assert step.loss.dtype is torch.float32 and step.loss.isfinite()
        found[is_half] = step.loss.item()
    assert found[True] == pytest.approx(found[False], rel=0.05)
