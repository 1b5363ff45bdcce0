"""Layout, precision, compiling and memory of a training: faster ways to the same weights, up to rounding."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest
import torch
from torch import nn

import pdm_lightning.stages.train as train_module
from pdm_lightning.devices import precise
from pdm_lightning.models import Classifier, ResNet
from pdm_lightning.optimization import make_optimizer
from pdm_lightning.pace import Pace, align, arrange, check_precision, held_memory
from pdm_lightning.stages.train import Segments

TINY = runpy.run_path(str(Path(__file__).with_name("tiny_training.py")))
tiny_spec, run, weights, equal = (TINY[name] for name in ("tiny_spec", "run", "weights", "equal"))
X = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
#: Of SGD, whose step is proportional to the gradient: AdamW divides rounding by rounding where a gradient is 0.
SGD = {"_target_": "torch.optim.SGD", "lr": 0.05, "momentum": 0.9, "weight_decay": 0.01}


def small(seed: int = 0) -> Classifier:
    torch.manual_seed(seed)
    backbone = ResNet(8, 1, (4, 4, 8))
    return Classifier(backbone, 8, 3)


def last(classifier: nn.Module) -> bool:
    convolutions = [m for m in classifier.modules() if isinstance(m, nn.Conv2d) and m.in_channels > 1]
    return all(m.weight.is_contiguous(memory_format=torch.channels_last) for m in convolutions)


@pytest.mark.parametrize(
    ("asked", "precision", "expected"),
    [(None, "float32", True), (None, "bf16", True), (False, "float32", False), (True, "float32", True)],
)
@pytest.mark.parametrize("side", [8, 28])
def test_layout_on_a_cpu(side: int, asked: bool | None, precision: str, expected: bool) -> None:
    classifier, images = small(), torch.rand(2, 1, side, side)
    before = classifier.eval()(images)
    arrange(classifier.train(), images, Pace(asked), precision)
    assert last(classifier) is expected
    assert classifier.training
    assert all(module.training for module in classifier.modules())
    assert torch.allclose(classifier.eval()(images), before, atol=1e-6)


def of_views(kind: str) -> Classifier:
    """A network that flattens its feature maps by `view`, which another layout does not allow."""
    torch.manual_seed(0)

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.head = nn.Conv2d(1, 4, 3), nn.Linear(4 * 36, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            maps = self.conv(x)
            return self.head(maps.view(len(x), -1) if kind == "view" else maps.flatten(1))

    return Classifier.wrap(Net(), num_classes=3)


def test_a_network_that_fails_in_the_layout_keeps_its_own() -> None:
    classifier = of_views("view")
    arrange(classifier, X, Pace(), "float32")
    assert classifier.module.conv.weight.is_contiguous()
    assert classifier(X).shape == (2, 3)
    with pytest.raises(ValueError, match=r"trainer.channels_last=true: .*flatten in place of view"):
        arrange(classifier, X, Pace(True), "float32")
    arrange(of_views("flatten"), X, Pace(True), "float32")


def test_trying_a_layout_leaves_statistics_and_random_numbers_alone() -> None:
    classifier = small()
    state = {name: value.clone() for name, value in classifier.state_dict().items()}
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    arrange(classifier, X, Pace(), "float32")
    assert torch.equal(torch.rand(3), expected)
    assert equal(state, classifier.state_dict())


def test_the_layout_changes_the_weights_by_rounding_alone(tmp_path) -> None:
    # float64 weights would be cast by nobody: ten steps of SGD in float32 stay close
    spec = tiny_spec(steps=10) | {"optimizer": SGD}
    run(tmp_path / "last", spec, pace=Pace(True))
    run(tmp_path / "first", spec, pace=Pace(False))
    one, other = weights(tmp_path / "last"), weights(tmp_path / "first")
    assert one.keys() == other.keys()
    for key, value in one.items():
        assert torch.allclose(value, other[key], rtol=1e-3, atol=1e-4), key


def stopped(folder: Path, monkeypatch: pytest.MonkeyPatch, spec: dict, pace: Pace) -> None:
    class Stop(BaseException):
        pass

    def stop(self, trainer, module, outputs, batch, batch_idx):
        if batch["step"] == 7:
            raise Stop

    with monkeypatch.context() as patch:
        patch.setattr(Segments, "on_train_batch_end", stop)
        with pytest.raises(Stop):
            run(folder, spec, pace=pace)


@pytest.mark.parametrize("optimizer", [SGD, tiny_spec()["optimizer"]], ids=["sgd", "adamw"])
def test_a_training_that_was_begun_in_another_layout_goes_on(optimizer, tmp_path, monkeypatch) -> None:
    spec = tiny_spec(steps=12, log_every=1) | {"optimizer": optimizer}
    whole = run(tmp_path / "whole", spec, pace=Pace(False))
    stopped(tmp_path / "cut", monkeypatch, spec, Pace(False))
    cut = run(tmp_path / "cut", spec, pace=Pace(True))
    # a state read in the wrong order moves the weights by the learning rate a step
    for key, value in weights(tmp_path / "cut").items():
        assert torch.allclose(value, weights(tmp_path / "whole")[key], rtol=1e-2, atol=2e-3), key
    assert cut["terms"]["loss"] == pytest.approx(whole["terms"]["loss"], rel=1e-2)


def test_a_state_is_brought_into_the_layout_of_its_weight() -> None:
    weight = nn.Parameter(torch.rand(4, 3, 3, 3).contiguous(memory_format=torch.channels_last))
    optimizer = torch.optim.SGD([weight], 0.1, momentum=0.9)
    buffer = torch.arange(108.0).reshape(4, 3, 3, 3)
    optimizer.state[weight]["momentum_buffer"] = buffer
    align(optimizer)
    found = optimizer.state[weight]["momentum_buffer"]
    assert found.stride() == weight.stride()
    assert torch.equal(found, buffer)


def test_bf16_trains_float32_weights_through_a_float32_loss(tmp_path, monkeypatch) -> None:
    seen: list[torch.dtype] = []
    forward = train_module.build_loss(tiny_spec()["defense"]).__class__.forward

    def noted(self, out):
        seen.extend([out.embeddings.dtype, out.logits.dtype])
        return forward(self, out)

    inner: list[torch.dtype] = []
    original = ResNet.forward

    def watched(self, x):
        self.stage3.register_forward_hook(lambda _m, _i, output: inner.append(output.dtype))
        return original(self, x)

    monkeypatch.setattr("pdm_lightning.losses.CombinedLoss.forward", noted)
    monkeypatch.setattr(ResNet, "forward", watched)
    run(tmp_path, tiny_spec(steps=2) | {"precision": "bf16"})
    assert set(seen) == {torch.float32}
    assert torch.bfloat16 in inner
    assert all(value.dtype in (torch.float32, torch.int64) for value in weights(tmp_path).values())


def test_bf16_resumes_to_exactly_the_same_weights(tmp_path, monkeypatch) -> None:
    spec = tiny_spec(steps=12) | {"precision": "bf16"}
    run(tmp_path / "whole", spec)
    stopped(tmp_path / "cut", monkeypatch, spec, Pace())
    run(tmp_path / "cut", spec)
    assert equal(weights(tmp_path / "cut"), weights(tmp_path / "whole"))
    run(tmp_path / "float32", tiny_spec(steps=12))
    assert not equal(weights(tmp_path / "float32"), weights(tmp_path / "whole"))


def test_a_folder_of_another_precision_is_refused(tmp_path) -> None:
    run(tmp_path, tiny_spec(steps=2))
    with pytest.raises(ValueError, match="other settings of precision"):
        run(tmp_path, tiny_spec(steps=2) | {"precision": "bf16"})


def test_an_unknown_precision_names_the_others() -> None:
    with pytest.raises(ValueError, match=r"trainer.precision=fp8: choose float32, tf32 or bf16"):
        check_precision("fp8")


def test_a_job_that_finds_no_gpu_trains_nothing_in_tf32(tmp_path) -> None:
    with pytest.raises(
        ValueError, match=r"tf32 is a mode of CUDA devices, and this training runs on the CPU: use"
    ):
        run(tmp_path, tiny_spec(steps=2) | {"precision": "tf32"})
    assert not (tmp_path / "model.safetensors").exists()


def test_tf32_is_for_the_training_alone() -> None:
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    with precise("tf32"):
        assert torch.get_float32_matmul_precision() == "high"
        assert torch.backends.cudnn.allow_tf32
    assert (torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32) == before


def test_a_compiled_network_computes_the_same(monkeypatch) -> None:
    """Through PyTorch's own capture of the graph; the code generator behind it is PyTorch's matter."""
    compile_ = nn.Module.compile
    monkeypatch.setattr(nn.Module, "compile", lambda self: compile_(self, backend="eager"))
    plain, fast = small(), small()
    arrange(fast, X, Pace(False, compile=True), "float32")
    assert fast.backbone._compiled_call_impl is not None
    assert list(fast.state_dict()) == list(plain.state_dict())
    for classifier in (plain, fast):
        classifier.train()(X).square().sum().backward()
    for one, other in zip(plain.parameters(), fast.parameters(), strict=True):
        assert torch.allclose(one.grad, other.grad, atol=1e-5)


def test_what_cannot_be_compiled_is_refused_in_a_line() -> None:
    with pytest.raises(ValueError, match=r"looks at inner layers.*trainer.compile=false"):
        arrange(small(), X, Pace(compile=True), "float32", looked_into=True)
    with pytest.raises(ValueError, match=r"caught inside it.*trainer.compile=false"):
        arrange(of_views("flatten"), X, Pace(compile=True), "float32")


def test_held_memory_ends_also_after_an_error() -> None:
    calls: list[tuple[int, ...]] = []

    class Libc:
        def mallopt(self, *pair: int) -> None:
            calls.append(pair)

        def malloc_trim(self, pad: int) -> None:
            calls.append((pad,))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pdm_lightning.pace._glibc", Libc)
        with pytest.raises(KeyError), held_memory():
            assert calls == [(-3, 1 << 30), (-1, 2**31 - 1)]
            raise KeyError
        # back below what glibc's own rule reaches, and nothing stays with the process
        assert calls[2:] == [(-3, 32 << 20), (-1, 64 << 20), (0,)]
        calls.clear()
        patch.setattr("pdm_lightning.pace._glibc", lambda: None)
        with held_memory():
            pass
    assert not calls


def test_optimizers_of_the_options_keep_the_layout_of_the_weights() -> None:
    classifier = small().to(memory_format=torch.channels_last)
    optimizer = make_optimizer(classifier, tiny_spec()["optimizer"])
    classifier(X).square().sum().backward()
    optimizer.step()
    assert last(classifier)
    for weight, state in optimizer.state.items():
        assert state["exp_avg"].stride() == weight.stride()
