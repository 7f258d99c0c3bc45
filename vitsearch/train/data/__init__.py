"""Images in memory: read once, squared to one size, split by a seed."""

from vitsearch.train.data.decode import read_image_file
from vitsearch.train.data.image_data import ImageData
from vitsearch.train.data.load import load_dataset
from vitsearch.train.data.readers import READERS

__all__ = ["READERS", "ImageData", "load_dataset", "read_image_file"]
