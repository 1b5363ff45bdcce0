from __future__ import annotations

import pytest
import pytorch_lightning as pl
import torch

from pdm_lightning.data.base import ImageData
from pdm_lightning.data.module import PDMDataModule


def toy(n: int = 50, validation: int = 23) -> ImageData:
    """Images whose every pixel is their own number, so that a batch tells where it came from."""

    def split(first: int, count: int) -> tuple[torch.Tensor, torch.Tensor]:
        numbers = torch.arange(first, first + count)
        return numbers.to(torch.uint8)[:, None, None, None].expand(-1, 1, 8, 8), numbers % 3

    return ImageData("toy", split(0, n), split(100, validation), split(200, 5), list("abc"))


def ids(batch: dict) -> torch.Tensor:
    return batch["x"][:, 0, 0, 0].long()


def test_an_epoch_shows_every_anchor_once() -> None:
    module = PDMDataModule(toy(), batch_size=10, seed=3)
    assert module.steps_per_epoch == 5
    epochs = [torch.cat([ids(module.batch_at(e * 5 + i)) for i in range(5)]) for e in range(2)]
    assert all(order.sort().values.tolist() == list(range(50)) for order in epochs)
    assert not torch.equal(*epochs)


def test_single_batches() -> None:
    batch = PDMDataModule(toy(), batch_size=10).batch_at(7)
    assert set(batch) == {"x", "y", "step"} and batch["step"] == 7
    assert batch["x"].dtype == torch.uint8 and batch["x"].shape == (10, 1, 8, 8)
    assert torch.equal(batch["y"], ids(batch) % 3)


def test_paired_batches() -> None:
    module = PDMDataModule(toy(), batch_size=10, pairs=True, q=0.5, seed=1)
    single = PDMDataModule(toy(), batch_size=10, seed=1)
    seen = []
    for step in range(50):
        batch = module.batch_at(step)
        assert batch["x"].shape == (20, 1, 8, 8) and batch["same"].shape == (10,)
        assert torch.equal(batch["y"], ids(batch) % 3)
        assert torch.equal(batch["y"][:10] == batch["y"][10:], batch["same"])
        assert torch.equal(batch["x"][:10], single.batch_at(step)["x"])
        seen.append(batch["same"])
    assert 0.4 < torch.cat(seen).double().mean() < 0.6


def test_partners_are_drawn_anew_in_every_epoch() -> None:
    module = PDMDataModule(toy(), batch_size=50, pairs=True)
    partners = []
    for epoch in range(2):
        anchors, partner = ids(module.batch_at(epoch)).chunk(2)
        partners.append(partner[anchors.argsort()])
    assert (partners[0] != partners[1]).double().mean() > 0.8


def test_a_batch_is_a_pure_function_of_seed_and_step() -> None:
    forward = PDMDataModule(toy(), batch_size=8, pairs=True, seed=5, augment={"crop": 2, "flip": True})
    backward = PDMDataModule(toy(), batch_size=8, pairs=True, seed=5, augment={"crop": 2, "flip": True})
    first = [forward.on_after_batch_transfer(forward.batch_at(s)) for s in range(20)]
    torch.manual_seed(99)
    second = [backward.on_after_batch_transfer(backward.batch_at(s)) for s in reversed(range(20))][::-1]
    for a, b in zip(first, second, strict=True):
        assert all(
            torch.equal(torch.as_tensor(a[k]), torch.as_tensor(b[k])) for k in ("x", "y", "same", "step")
        )
    other = PDMDataModule(toy(), batch_size=8, pairs=True, seed=6).batch_at(0)
    assert not torch.equal(ids(other), ids(forward.batch_at(0)))


def test_transfer_scales_and_augments_training_only() -> None:
    plain = PDMDataModule(toy(), batch_size=10)
    batch = plain.batch_at(0)
    assert torch.equal(plain.on_after_batch_transfer(batch)["x"], batch["x"].float() / 255)
    module = PDMDataModule(toy(), batch_size=10, augment={"crop": 2})
    shown = module.on_after_batch_transfer(batch)["x"]
    assert shown.dtype == torch.float32 and shown.max() <= 1
    assert (shown[1:] == 0).any(), "a shifted image has black margins"
    assert not torch.equal(shown, module.on_after_batch_transfer(batch | {"step": 1})["x"])
    validation = module.validation_batch(0)
    assert torch.equal(module.on_after_batch_transfer(validation)["x"], validation["x"].float() / 255)


def test_validation_is_shown_once_with_fixed_partners() -> None:
    module = PDMDataModule(toy(), batch_size=10, pairs=True, seed=2)
    runs = [list(module.val_dataloader()) for _ in range(2)]
    assert [len(b["same"]) for b in runs[0]] == [10, 10, 3]
    anchors = torch.cat([ids(b).chunk(2)[0] for b in runs[0]])
    assert anchors.sort().values.tolist() == list(range(100, 123))
    assert anchors.tolist() != sorted(anchors.tolist())
    for a, b in zip(*runs, strict=True):
        assert torch.equal(a["x"], b["x"]) and "step" not in a
        assert ids(a).min() >= 100
        assert torch.equal(a["y"][: len(a["same"])] == a["y"][len(a["same"]) :], a["same"])


def test_a_batch_larger_than_the_data_set() -> None:
    module = PDMDataModule(toy(7, 4), batch_size=128, pairs=True)
    assert (module.batch_size, module.steps_per_epoch) == (7, 1)
    assert len(module.batch_at(3)["x"]) == 14


@pytest.mark.parametrize("key", ["batch_size", "segment", "total_steps"])
def test_counts_are_positive(key: str) -> None:
    with pytest.raises(ValueError, match=f"{key}=0: at least 1"):
        PDMDataModule(toy(), **{key: 0})


class Recorder(pl.LightningModule):
    """Trains one weight, and writes down what it is shown."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.steps: list[int] = []
        self.validations = 0

    def training_step(self, batch: dict, _: int) -> torch.Tensor:
        assert batch["x"].dtype == torch.float32
        self.steps.append(batch["step"])
        return (self.weight - batch["x"].mean()) ** 2

    def validation_step(self, batch: dict, _: int) -> None:
        assert batch["x"].dtype == torch.float32
        self.validations += len(batch["y"])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.1)


def run(
    module: PDMDataModule, epochs: int, tmp_path: object, resume: str | None = None
) -> tuple[Recorder, pl.Trainer]:
    recorder = Recorder()
    trainer = pl.Trainer(
        max_epochs=epochs,
        reload_dataloaders_every_n_epochs=1,
        num_sanity_val_steps=0,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=str(tmp_path),
    )
    trainer.fit(recorder, datamodule=module, ckpt_path=resume)
    return recorder, trainer


def test_lightning_sees_every_step_once_also_after_a_resume(tmp_path) -> None:
    def fresh() -> PDMDataModule:
        return PDMDataModule(toy(), batch_size=8, segment=4, total_steps=10, seed=1)

    assert fresh().segments == 3
    whole, _ = run(fresh(), 3, tmp_path)
    assert whole.steps == list(range(10))
    assert whole.validations == 3 * 23
    early, trainer = run(fresh(), 1, tmp_path)
    trainer.save_checkpoint(tmp_path / "early.ckpt")
    late, _ = run(fresh(), 3, tmp_path, str(tmp_path / "early.ckpt"))
    assert early.steps + late.steps == list(range(10))
    assert torch.equal(late.weight, whole.weight)


def large_validation(images: int) -> ImageData:
    def split(n: int) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.zeros(n, 1, 8, 8, dtype=torch.uint8), torch.arange(n) % 2

    return ImageData("plain", split(64), split(images), split(4), ["a", "b"])


def test_a_large_validation_takes_a_tenth_of_the_passes_and_ends_the_training(tmp_path) -> None:
    # a segment: 2 steps of 64 images, each three passes: 384; 1,001 passes are a tenth of 26.07 segments
    module = PDMDataModule(large_validation(1001), batch_size=64, segment=2, total_steps=60)
    assert [s for s in range(30) if module.validates(s)] == [26, 29]
    module = PDMDataModule(large_validation(1000), batch_size=64, segment=2, total_steps=60)
    assert all(module.validates(s) for s in range(30))
    # as many passes as MNIST's 50 steps of 128 images: 26 % of them without the rule
    long = PDMDataModule(large_validation(5000), batch_size=64, segment=100, total_steps=600)
    assert [s for s in range(6) if long.validates(s)] == [2, 5]
    recorder, _ = run(PDMDataModule(large_validation(1001), 64, segment=1, total_steps=3), 3, tmp_path)
    assert (recorder.steps, recorder.validations) == ([0, 1, 2], 1001)
