"""Write one image of the digits data set as a PNG file, so that there is something to classify."""

import sys

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

digits = load_digits()
index = 1234
pixels = np.round(digits.images[index] * 255 / 16).astype(np.uint8)
Image.fromarray(pixels).save(sys.argv[1])
print(f"{sys.argv[1]}: a handwritten {digits.target[index]}")
