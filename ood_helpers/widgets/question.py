"""A quick question, answered on the page."""

import html
import re
from collections.abc import Mapping

import ipywidgets

from . import given
from .page import close, show


class Question:
    """A quick question: choose an answer, and read at once whether it is right, and why.

    question  one or two sentences
    answers   choice -> what to say to whoever chose it, at least two
    right     the right choice

    For a class: with *Vote* pressed each press of a choice counts a hand, and the answer waits until it is opened.
    A cell that ends in a question shows it. A notebook read without a kernel shows the choices, and the answer folded away.
    ValueError or TypeError for an empty text, and where the right choice is not among at least two.
    """

    def __init__(self, question: str, answers: Mapping[str, str], right: str) -> None:
        given.text("question", question)
        given.table("answers", answers)
        for choice, reason in answers.items():
            given.text(f"what is said of {choice!r}", reason)
        given.text("right", right)
        if right not in answers or len(answers) < 2:
            raise ValueError(f"right must be one of at least two answers {list(answers)}; got {right!r}")
        self.question, self.answers, self.right = question, answers, right
        # not radio buttons: JupyterLab takes the arrow keys for its cells
        self.choices = {choice: ipywidgets.Button(description=choice, layout={"width": "auto"}) for choice in answers}
        for choice, button in self.choices.items():
            button.on_click(lambda _, choice=choice: self.choose(choice))
        self.votes = dict.fromkeys(answers, 0)
        self.voting = ipywidgets.ToggleButton(
            description="Vote", tooltip="count hands first: the answer waits until it is opened"
        )
        self.opening = ipywidgets.Button(description="Open the answer", layout={"visibility": "hidden"})
        self.voting.observe(self._vote, "value")
        self.opening.on_click(lambda _: self.open())
        self.text = ipywidgets.HTML()
        asked = ipywidgets.HTML(f'<p style="font-size:115%;line-height:1.4"><b>Question.</b> {_inline(question)}</p>')
        vote = ipywidgets.HBox([self.voting, self.opening])
        self.box = ipywidgets.VBox([asked, *self.choices.values(), vote, self.text], layout={"align_items": "flex-start"})
        self.box.add_class("ood-question")
        vote.add_class("ood-vote")

    def choose(self, choice):
        """Mark a choice as right or wrong and show the reason; in a vote, count a hand instead."""
        if self.voting.value:
            self.votes[choice] += 1
            self.choices[choice].description = f"{choice} · {self.votes[choice]}"
            return
        right = choice == self.right
        button = self.choices[choice]
        button.icon, button.button_style = ("check", "success") if right else ("times", "warning")
        button.style.text_color = "white" if right else "black"  # on green, on orange
        verdict, reason = "✓ Right." if right else "✗ No.", _inline(self.answers[choice])
        style = "font-size:115%;line-height:1.4;max-width:56em"
        self.text.value = f'<p role="status" style="{style}"><b>{verdict}</b> {reason}</p>'

    def open(self):
        """End a vote: the answer, and how many hands each choice had."""
        tally = {choice: button.description for choice, button in self.choices.items()}
        self.voting.value = False
        for choice, text in tally.items():
            self.choices[choice].description = text
        self.choose(self.right)

    def _vote(self, _change):
        """Begin a vote, or leave it: nothing is marked, no hand counted."""
        self.votes = dict.fromkeys(self.answers, 0)
        for choice, button in self.choices.items():
            button.description, button.icon, button.button_style = choice, "", ""
            button.style.text_color = None
        self.text.value, self.opening.layout.visibility = "", "visible" if self.voting.value else "hidden"

    def _ipython_display_(self):
        choices = "\n".join(f"- {choice}" for choice in self.answers)
        others = " ".join(f"*{choice}?* {why}" for choice, why in self.answers.items() if choice != self.right)
        answer = f"**{self.right}.** {self.answers[self.right]} {others}"
        markdown = f"**Question.** {self.question}\n\n{choices}\n\n<details><summary>Answer</summary>\n\n{answer}\n\n</details>"
        show(self, markdown)

    def close(self):
        """Free what the page holds of it; a cell that is run again closes what it showed before."""
        close(self)


def _inline(text):
    """Plain text as HTML, with `code` and *emphasis*."""
    text = re.sub(r"`([^`]+)`", r"<code>\1</code>", html.escape(text, quote=False))
    return re.sub(r"\*([^*]+)\*", r"<em>\1</em>", text)
