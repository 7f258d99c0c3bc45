import math

import numpy as np
import pytest
import torch
from torch import nn

from tests.unit.train.factory import network, tensor_data
from vitsearch.errors import TrialError
from vitsearch.train.evaluate import Score, evaluate, normalized_batches


@pytest.mark.parametrize("batch_size", [1, 5, 12, 100])
def test_the_score_does_not_depend_on_the_batch(batch_size: int):
    data, model = tensor_data(), network()
    indices = data.source.val
    found = evaluate(model, data, indices, batch_size=batch_size)
    images = data.normalized(torch.from_numpy(indices))
    with torch.no_grad():
        logits = model.eval()(images).double()
    labels = torch.from_numpy(data.source.labels_N[indices])
    picked = logits.log_softmax(1)[torch.arange(len(labels)), labels]
    assert found.accuracy == (logits.argmax(1) == labels).sum().item() / len(labels)
    assert found.loss == pytest.approx(-picked.mean().item(), rel=1e-5)


def test_batches_follow_the_indices():
    data = tensor_data()
    indices = np.array([5, 2, 40, 7, 7])
    parts = list(normalized_batches(data, indices, 2))
    assert [len(labels) for _, labels in parts] == [2, 2, 1]
    assert torch.cat([labels for _, labels in parts]).tolist() == data.source.labels_N[indices].tolist()
    images = torch.cat([images for images, _ in parts])
    torch.testing.assert_close(images, data.normalized(torch.from_numpy(indices)))


@pytest.mark.parametrize("training", [True, False])
def test_the_mode_is_restored_and_dropout_rests(training: bool):
    data, model = tensor_data(), network(dropout=0.5, drop_path=0.5).train(training)
    one, two = (evaluate(model, data, data.source.val, batch_size=4) for _ in range(2))
    assert one == two
    assert model.training is training


def test_the_hook_is_called_between_batches_and_may_raise():
    data, calls = tensor_data(), []
    evaluate(network(), data, data.source.val, batch_size=5, on_batch=lambda: calls.append(1))
    assert len(calls) == 3

    def stop() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate(network(), data, data.source.val, batch_size=5, on_batch=stop)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_outputs_that_are_not_finite_are_an_error(value: float):
    class Broken(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.full((len(x), 3), value)

    data = tensor_data()
    with pytest.raises(TrialError, match="not finite") as caught:
        evaluate(Broken(), data, data.source.val, batch_size=5)
    assert (caught.value.stage, caught.value.kind) == ("evaluate", "nan_loss")


def test_a_perfect_and_a_hopeless_network():
    data = tensor_data()

    class Fixed(nn.Module):
        def __init__(self, shift: int) -> None:
            super().__init__()
            self.shift, self.at = shift, 0

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            labels = data.labels_N[data.source.val][self.at : self.at + len(x)]
            self.at += len(x)
            return 30 * nn.functional.one_hot((labels + self.shift) % 3, 3).float()

    assert evaluate(Fixed(0), data, data.source.val, batch_size=5) == Score(accuracy=1.0, loss=pytest.approx(0.0))
    assert evaluate(Fixed(1), data, data.source.val, batch_size=5).accuracy == 0.0
