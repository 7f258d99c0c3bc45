"""The colours of pictures and pages, told apart by people with colour-blindness too."""

INK = "#1f2937"
SOFT = "#6b7280"
FADED = "#9ca3af"
FRONT = "#1d4ed8"
KNEE = "#c2410c"
BAD = "#be123c"
LANDMARK = "#7c3aed"
