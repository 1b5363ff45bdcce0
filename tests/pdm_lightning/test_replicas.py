"""Three processes with parts of a batch compute what one does with the whole batch, forward and backward."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pdm_lightning.crew import Crew
from pdm_lightning.norm import CrossReplicaBatchNorm, join_norms
from pdm_lightning.replicas import ALONE, Replica, check_shares, meeting_point

CLOSE = {"rtol": 1e-9, "atol": 1e-9}
Told = dict[tuple[Any, Any], list[tuple[Any, Any]]]


@pytest.fixture(scope="module")
def workers() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).parent))
        yield importlib.import_module("replica_workers")


@pytest.fixture(scope="module")
def told(workers: Any) -> Told:
    """What the processes found, by case, in the order of their ranks."""
    found: dict[tuple[Any, Any], list[Any]] = {}
    stores = [meeting_point() for _ in range(2)]
    with Crew("replica") as crew:
        for rank in range(workers.COUNT):
            crew.start(workers.together, rank, [store.port for store in stores])
        for case, step, rank, *values in crew:
            found.setdefault((case, step), [()] * workers.COUNT)[rank] = tuple(values)
    return found


NAMES = ["images", "rows", "volumes", "cumulative", "plain", "untracked"]


@pytest.mark.parametrize("name", NAMES)
def test_the_norm_of_all_is_batch_norm_on_the_whole_batch(name: str, told: Told, workers: Any) -> None:
    whole = workers.network(name)
    for step in range(3):
        x = workers.rows_of(name, step).requires_grad_()
        out = whole(x)
        workers.judged(out, step).backward()
        for theirs, _ in told[name, step]:
            torch.testing.assert_close(theirs, out.detach(), **CLOSE)
        gradient = torch.cat([grad for _, grad in told[name, step]])
        # each process goes backward from the loss of the whole batch through its own rows alone
        torch.testing.assert_close(gradient, x.grad, **CLOSE)
    for state, gradients in told[name, "state"]:
        torch.testing.assert_close(state, dict(whole.state_dict()), **CLOSE)
        assert all(torch.equal(state[key], told[name, "state"][0][0][key]) for key in state)
        assert len(gradients) == len(list(whole.parameters()))
    parts = zip(*(gradients for _, gradients in told[name, "state"]), strict=True)
    for part, parameter in zip(parts, whole.parameters(), strict=True):
        torch.testing.assert_close(sum(part), parameter.grad, **CLOSE)


@pytest.mark.parametrize("name", NAMES)
def test_in_eval_mode_it_is_plain(name: str, told: Told, workers: Any) -> None:
    whole = workers.network(name)
    for step in range(3):
        whole(workers.rows_of(name, step))
    for rank, (out, _) in enumerate(told[name, "eval"]):
        own = Replica(rank, workers.COUNT).share(workers.rows_of(name, 9), 1)
        torch.testing.assert_close(out, whole.eval()(own), **CLOSE)


@pytest.mark.parametrize("branches", [1, 2])
def test_every_process_has_its_part_of_anchors_and_partners(branches: int, told: Told, workers: Any) -> None:
    rows = workers.rows_of("rows", 4).repeat(branches, 1) + torch.arange(6.0 * branches)[:, None]
    for rank, (own, gathered) in enumerate(told[branches, "rows"]):
        numbers = [branch * 6 + 2 * rank + i for branch in range(branches) for i in range(2)]
        assert torch.equal(own, rows[numbers])
        assert torch.equal(gathered, rows)


@pytest.mark.parametrize("branches", [1, 2])
def test_the_mean_of_the_gradients_is_that_of_the_whole_loss(branches: int, told: Told, workers: Any) -> None:
    layer = workers.coupled()
    rows = workers.rows_of("rows", 4).repeat(branches, 1) + torch.arange(6.0 * branches)[:, None]
    total = workers.pulled(layer(rows))
    total.backward()
    for theirs, _ in told[branches, "loss"]:
        torch.testing.assert_close(theirs, total.detach(), **CLOSE)
    for number, parameter in enumerate(layer.parameters()):
        mean = sum(gradients[number] for _, gradients in told[branches, "loss"]) / workers.COUNT
        torch.testing.assert_close(mean, parameter.grad, **CLOSE)
        assert parameter.grad is not None
        assert parameter.grad.abs().max() > 1e-6 or number == 1  # a bias before a norm has no say


@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="the kernel's list of sockets is read")
def test_processes_meet_where_nobody_else_comes_by() -> None:
    store = meeting_point()
    rows = [
        row.split()
        for name in ("tcp", "tcp6")
        for row in Path("/proc/net", name).read_text().splitlines()[1:]
    ]
    listening = [
        place for _, place, _, state, *_ in rows if state == "0A" and place.endswith(f":{store.port:04X}")
    ]
    assert listening == [f"0100007F:{store.port:04X}"]


def test_alone_nothing_is_shared_or_scaled() -> None:
    x = torch.randn(4, 3, requires_grad=True)
    assert ALONE.share(x, 2) is ALONE.gather(x, 2) is ALONE.scale(x) is x


def test_joined_norms_keep_the_names_hooks_and_tensors_of_the_network() -> None:
    shared = nn.BatchNorm1d(3)
    net = nn.Sequential(nn.Linear(3, 3), nn.Sequential(shared, nn.ReLU()), shared)
    seen: list[Tensor] = []
    shared.register_forward_hook(lambda _module, _args, out: seen.append(out))
    before = dict(net.state_dict(keep_vars=True))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    net.eval()
    joined = join_norms(net, torch.device("cpu"))
    assert joined is net
    assert isinstance(net[1][0], CrossReplicaBatchNorm)
    assert not net[1][0].training
    after = net.state_dict(keep_vars=True)
    assert list(after) == list(before)
    assert all(after[key] is before[key] for key in before)
    # without a process group it is the norm that it was
    out = net.train()(torch.randn(8, 3))
    assert len(seen) == 2
    out.square().sum().backward()
    optimizer.step()
    assert float(shared.num_batches_tracked) == 2


def test_on_gpus_it_is_pytorch_s_own() -> None:
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
    names = list(net.state_dict())
    assert isinstance(join_norms(net, torch.device("cuda"))[1], nn.SyncBatchNorm)  # type: ignore[index]
    assert list(net.state_dict()) == names


@pytest.mark.parametrize(
    ("batch", "devices", "mend"),
    [
        (100, 3, "use budget.train.batch_size=99, or trainer.devices=2$"),
        (128, 6, "use budget.train.batch_size=126, or trainer.devices=4$"),
        (2, 4, "use budget.train.batch_size=4, or trainer.devices=2$"),
    ],
)
def test_an_uneven_batch_is_refused(batch: int, devices: int, mend: str) -> None:
    with pytest.raises(
        ValueError, match=f"^trainer.devices={devices}: they cannot share a batch of {batch}.*{mend}"
    ):
        check_shares(batch, devices)


def test_an_even_batch_is_not() -> None:
    for devices in (1, 2, 4, 128):
        check_shares(128, devices)
