"""What a settled claim is, the list of them, and the page that shows them."""
from dataclasses import dataclass

CLAIMS = {}                 # number -> the function that measures

VERDICTS = ("true", "true under a condition", "wrong")


@dataclass(frozen=True)
class Settled:
    """A claim with its verdict: `because` in a sentence or two, `figures` as (what was measured, its value)."""

    number: int
    claim: str
    verdict: str
    because: str
    figures: tuple

    def __post_init__(self):
        if self.verdict not in VERDICTS:
            raise ValueError(f"claim {self.number}: verdict is {self.verdict!r}, wanted one of {', '.join(VERDICTS)}")


def claim(number, text):
    """Registers measure() -> (verdict, because, figures) as a claim's measurement."""
    def register(measure):
        def settled(**options):
            verdict, because, figures = measure(**options)
            return Settled(number, text, verdict, because, tuple(figures))
        settled.__doc__, settled.__name__ = measure.__doc__, measure.__name__
        CLAIMS[number] = settled
        return settled
    return register


def known(numbers=()):
    """The numbers given, or those of all claims if none is. Raises ValueError if there is no claim of one of them."""
    for number in numbers:
        if number not in CLAIMS:
            raise ValueError(f"claims: there is none with the number {number}, wanted one of "
                             f"{', '.join(map(str, sorted(CLAIMS)))}")
    return list(numbers) or sorted(CLAIMS)


def settle(number):
    """Measure one claim. Raises ValueError if there is none of that number."""
    return CLAIMS[known([number])[0]]()


def show(value):
    """A figure as it is printed: text and integers as they are, other numbers to four digits."""
    return str(value) if isinstance(value, (str, int)) else f"{value:.4g}"


def lines(settled):
    """A settled claim as lines of text."""
    width = max(len(what) for what, _ in settled.figures)
    return [f'{settled.number}. "{settled.claim}"', f"   {settled.verdict}: {settled.because}",
            *(f"   {what.ljust(width)}  {show(value)}" for what, value in settled.figures)]


def markdown(all_settled):
    """papers/claims.md."""
    text = ["# What popular explanations say, settled by number", "",
            "Written by `refdiff claims --markdown papers/claims.md`, which measures every figure here anew. The same",
            "command with a number, as `refdiff claims 5`, measures one. Networks and random numbers are seeded; other",
            "machines may differ in the last digit shown. The numbers are those of a longer list: 9, 12 and 14 on are",
            "about training at equal budget, other model families and perception, and are not settled here.", ""]
    for settled in all_settled:
        text += [f'## {settled.number}. "{settled.claim}"', "",
                 f"**{settled.verdict.capitalize()}.** {settled.because}", "",
                 f"Measured by `refdiff claims {settled.number}`:", "", "| | |", "| --- | ---: |",
                 *(f"| {what} | {show(value)} |" for what, value in settled.figures), ""]
    return "\n".join(text)
