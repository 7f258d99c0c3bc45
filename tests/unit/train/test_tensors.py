import numpy as np
import pytest
import torch

from tests.unit.train.factory import CPU, image_data, tensor_data
from vitsearch.train.tensors import TensorData, indices_of


def test_images_share_the_memory_of_a_read_only_array():
    data = image_data()
    assert not data.images_NHWC.flags.writeable
    tensors = TensorData(data, CPU)
    assert tensors.images_NHWC.data_ptr() == data.images_NHWC.ctypes.data
    assert tensors.source is data


@pytest.mark.parametrize("channels", [1, 3])
def test_raw_images_are_the_arrays_channels_first(channels: int):
    data = image_data(channels=channels)
    found = TensorData(data, CPU).raw(torch.tensor([3, 0]))
    assert found.dtype == torch.uint8
    assert torch.equal(found, torch.from_numpy(data.images_NHWC[[3, 0]].transpose(0, 3, 1, 2).copy()))


@pytest.mark.parametrize("channels", [1, 3])
def test_normalised_training_images_have_zero_mean_and_unit_deviation(channels: int):
    data = tensor_data(channels=channels)
    images = data.normalized(torch.from_numpy(data.source.train))
    assert images.dtype == torch.float32
    assert images.is_contiguous()
    torch.testing.assert_close(images.mean(dim=(0, 2, 3)), torch.zeros(channels), atol=1e-4, rtol=0)
    torch.testing.assert_close(images.std(dim=(0, 2, 3), correction=0), torch.ones(channels), atol=1e-4, rtol=0)


def test_splits_by_name():
    data = image_data()
    for name in ("train", "val", "test"):
        assert np.array_equal(indices_of(data, name), getattr(data, name))
    with pytest.raises(KeyError):
        indices_of(data, "other")
