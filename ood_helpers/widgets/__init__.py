"""What moves in the page: controls, demos, trainings to watch, quick questions."""

from .controls import choice, slider
from .demo import Demo
from .live import Live
from .living_map import LivingMap
from .painting import Painting
from .question import Question

__all__ = ["Demo", "Live", "LivingMap", "Painting", "Question", "choice", "slider"]
