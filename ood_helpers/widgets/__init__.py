"""What moves in the page: controls, demos, trainings to watch, worlds to paint, quick questions."""

from .controls import choice, slider
from .demo import Demo
from .live import Live
from .living_map import LivingMap
from .painting import Painting
from .question import Question
from .world import World

__all__ = ["Demo", "Live", "LivingMap", "Painting", "Question", "World", "choice", "slider"]
