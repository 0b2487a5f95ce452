"""SGD: PyTorch's numbers and checkpoints, without PyTorch's compiler."""

import subprocess
import sys
from copy import deepcopy

import torch

from lib.train.sgd import SGD

OPTIONS = {"lr": 0.1, "momentum": 0.9, "weight_decay": 1e-3, "fused": True}


def make_parameter() -> torch.nn.Parameter:
    return torch.nn.Parameter(torch.randn(7, 5, generator=torch.Generator().manual_seed(0)))


def make_step(optimizer: torch.optim.Optimizer, parameter: torch.nn.Parameter) -> None:
    optimizer.zero_grad(set_to_none=True)
    parameter.sin().sum().backward()
    optimizer.step()


def test_steps_and_checkpoints_are_pytorchs_to_the_bit():
    ours, theirs = make_parameter(), make_parameter()
    by_us, by_pytorch = SGD([ours], **OPTIONS), torch.optim.SGD([theirs], **OPTIONS)
    for _ in range(3):
        make_step(by_us, ours)
        make_step(by_pytorch, theirs)
    assert torch.equal(ours, theirs) and not torch.equal(ours, make_parameter())
    own, known = by_us.state_dict(), by_pytorch.state_dict()
    assert own["param_groups"] == known["param_groups"]
    assert torch.equal(own["state"][0]["momentum_buffer"], known["state"][0]["momentum_buffer"])
    by_us.load_state_dict(deepcopy(known))
    make_step(by_us, ours)
    make_step(by_pytorch, theirs)
    assert torch.equal(ours, theirs)


def test_the_compiler_is_not_loaded():
    code = (
        "import sys; from tests.test_sgd import *; parameter = make_parameter();"
        "optimizer = SGD([parameter], **OPTIONS); make_step(optimizer, parameter);"
        "optimizer.load_state_dict(optimizer.state_dict()); print('torch._dynamo' in sys.modules)"
    )
    made = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert made.stdout.strip() == "False"
