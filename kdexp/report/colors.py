"""The colors of all figures: of the page (Plotly) and of the PNG files (Matplotlib)."""

import numpy as np

# People with any kind of color vision can tell these apart (Okabe and Ito 2008).
BLUE, ORANGE, GREEN, PINK, YELLOW, SKY = "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"
GRAY, DARK_GRAY = "#8c8c8c", "#4d4d4d"

# The page's: the teacher's darkened to be read on white.
WINNER, TEACHER, CONTROL, OTHER = BLUE, "#b85000", DARK_GRAY, "#9aa5b1"
ROLES = {"teacher": TEACHER, "control": CONTROL, "student": WINNER}
"""The networks of a robustness report, and their colors on the page."""

SEED = "#55606b"
OUTLINE = "#111"
ERROR_BAR = "#333"
AXIS_LINE = "#b8c0c8"
CLASSES = (BLUE, ORANGE, GREEN, PINK, YELLOW, SKY, "#7a5195", "#6b7a00", "#8c564b", DARK_GRAY)

# Light means low, in one hue, so that the cells' numbers stay readable; for differences two hues about white.
SEQUENTIAL = [[0, "#f4f8fb"], [0.5, "#9ec5dd"], [1, "#0b5c8f"]]
DIVERGING = [[0, "#b35806"], [0.25, "#f1b873"], [0.5, "#f7f7f7"], [0.75, "#8fb8d8"], [1, "#1f5f99"]]
# Cividis (Nunez, Anderton and Renslow 2018), for lines: dark is low, yellow is high.
CIVIDIS = np.array([[0, 34, 78], [65, 77, 107], [124, 123, 120], [188, 175, 111], [230, 205, 60]])

# The PNG files': color and Matplotlib's marker.
MARKED_ROLES = {"teacher": (GRAY, "D"), "control": (ORANGE, "s"), "student": (BLUE, "o"), "exported": (GREEN, "^")}
STUDENTS = (BLUE, GREEN, PINK, YELLOW, SKY)
