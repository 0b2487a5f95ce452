"""Soft targets from class names, by small networks with random weights on disk."""

import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from hub import IMAGENET, TEXT, write_network

from lib.augment.views import EvalTransform
from lib.config import PrepareSettings
from lib.data.dataset import read_dataset
from lib.data.frame_tables import read_soft_targets
from lib.prepare.__main__ import main as prepare_main
from lib.prepare.steps import status_of
from lib.prepare.zero_shot import read_prompts, write_soft_targets
from lib.train.scoring import EvalProtocol, VideoViews

transformers = pytest.importorskip("transformers")
WORDS = "[PAD] [UNK] a video of person : running".split()
CROPS = EvalTransform(16, 16, 1)


@pytest.fixture(scope="module")
def networks(tmp_path_factory):
    """Names of networks of each kind, with a tokenizer of words."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    names = {}
    for kind in ("clip", "siglip", "xclip", "videomae"):
        folder = tmp_path_factory.mktemp(kind)
        changes = {} if kind == "videomae" else {"text_config": TEXT | {"vocab_size": 16}}
        names[kind] = write_network(folder, kind, **changes)
        words = [*WORDS, "bounce", "circle", "pulse", "sway", "[EOS]"]
        vocab = {word: number for number, word in enumerate(words)}
        tokenizer = Tokenizer(models.WordLevel(vocab, unk_token="[UNK]"))
        tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
        fast = transformers.PreTrainedTokenizerFast(
            tokenizer_object=tokenizer,
            pad_token="[PAD]",
            unk_token="[UNK]",
            eos_token="[EOS]",
            model_input_names=["input_ids", "attention_mask"],
        )
        fast.save_pretrained(folder)
    return names


@pytest.fixture
def dataset(prepared_dir, tmp_path):
    """A copy of the tiny data set."""
    shutil.copytree(prepared_dir / "synthetic", tmp_path / "data" / "synthetic")
    return read_dataset(tmp_path / "data" / "synthetic")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["clip", "siglip", "xclip"])
def test_probabilities_are_those_of_the_whole_network(networks, dataset, capsys, kind):
    path = write_soft_targets(dataset, networks[kind])
    targets = read_soft_targets(path, dataset, np.arange(len(dataset.index)))
    assert targets.shape == (32, 4) and len(np.unique(targets.round(5), axis=0)) > 1
    top1 = 100 * (targets.argmax(1) == dataset.index["label"]).mean()
    assert f"top-1 {top1:.1f} % of 32 labeled videos" in capsys.readouterr().out

    folder = networks[kind].removeprefix("hf/")
    network = transformers.AutoModel.from_pretrained(folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    texts = [text for (text,) in read_prompts(dataset.classes, None)]
    length = {"padding": "max_length", "max_length": 64} if kind == "siglip" else {"padding": True}
    tokens = tokenizer(texts, return_tensors="pt", **length)
    views = VideoViews(dataset, [5], EvalProtocol(4 if kind == "xclip" else 8, 1, 1, CROPS))
    frames = CROPS.views(*views[0])[:, 0].float()
    mean, std = (255 * torch.tensor(IMAGENET[key])[:, None, None] for key in IMAGENET)
    frames = (frames - mean) / std
    with torch.no_grad():
        output = network(**tokens, pixel_values=frames[None] if kind == "xclip" else frames)
    logits = output.logits_per_video if kind == "xclip" else output.logits_per_image
    assert targets[5] == pytest.approx(logits.mean(dim=0).softmax(dim=0).numpy(), abs=1e-5)


def test_prompts_follow_from_names_or_a_table(tmp_path):
    classes = ("BandMarching", "sit_down")
    assert read_prompts(classes, None) == [
        ["a video of a person: band marching"],
        ["a video of a person: sit down"],
    ]
    path = tmp_path / "prompts.csv"
    path.write_text('class,prompt\nsit_down,"one, sits"\nBandMarching,a band\nsit_down,down\n')
    assert read_prompts(classes, path) == [["a band"], ["one, sits", "down"]]
    for text, name in (("sit_down,x\n", "BandMarching"), ("sit_down,x\nsit_up,y\n", "sit_up")):
        path.write_text(f"class,prompt\n{text}")
        with pytest.raises(ValueError, match=f"prompts.csv: '.*{name[:3]}.*' is no class of the"):
            read_prompts((classes[0], "sit_down") if name != "sit_up" else ("sit_down",), path)


@pytest.mark.slow
def test_the_command_computes_them_once(networks, dataset, tmp_path, capsys):
    prompts = tmp_path / "prompts.csv"
    rows = [f"{name},a {name}\n{name},{name} of a person\n" for name in dataset.classes]
    prompts.write_text("class,prompt\n" + "".join(rows))
    arguments = ["--prepared_dir", str(tmp_path / "data"), "--soft_targets", networks["clip"]]
    arguments += ["--prompts_file", str(prompts)]
    assert prepare_main(arguments) == 0
    (path,) = dataset.folder.glob("soft_targets_*.csv")
    table = pd.read_csv(path)
    assert list(table) == ["name", *dataset.classes] and len(table) == 32
    assert "labeled videos" in capsys.readouterr().out
    assert prepare_main(arguments) == 0
    assert "delete it to compute it again" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("clip", "choose hf/<a CLIP, SigLIP or X-CLIP>"),
        ("hf/no/such", "hf download no/such"),
        ("videomae", "has no text side"),
    ],
)
def test_a_network_that_cannot_be_used_blocks_before_any_work(networks, dataset, name, problem):
    name = networks["videomae"] if name == "videomae" else name
    settings = PrepareSettings(prepared_dir=str(dataset.folder.parent), soft_targets=name)
    status = status_of(settings).set_index("part")["details"]
    assert "soft_targets: " in status["soft targets"] and problem in status["soft targets"]
