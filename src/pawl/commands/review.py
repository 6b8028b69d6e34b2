"""`pawl review`: people rate a blind sample of an agent's answers."""

from __future__ import annotations

import secrets
import time
from typing import TYPE_CHECKING, Annotated

import typer

from pawl import bootstrap
from pawl.commands.acting_key import acting_key
from pawl.settings import Settings

if TYPE_CHECKING:
    from pawl.review.files import Reviews

HELP = """People rate a blind sample of an agent's answers: is the quality score telling the truth?

\b
1. pawl review sample AGENT               draw answers at random, spread over quality, kind and arm
2. pawl review serve AGENT --rater ann --rater ben     a page on this machine, a link for each
   pawl review rate AGENT --rater ann     or here in the terminal; stop and go on as you like
3. pawl review report AGENT               how many are right, how far raters agree, what the score is worth
4. pawl review finish AGENT               put ratings and corrections into the lake, where training finds them

Raters see the question and the answer, and nothing of who gave it or how it was scored. Personal data and secrets are
taken out before anything is shown or stored.
"""
app = typer.Typer(no_args_is_help=True, help=HELP)

Agent = Annotated[str, typer.Argument(help="the agent's name in fleet.yaml")]
Which = Annotated[str, typer.Option("--review", help="a review's id, or how it begins; not given: the latest")]
DAY_S = 86_400.0


@app.command("sample")
def sample(
    agent: Agent,
    items: Annotated[int, typer.Option(min=10, max=2000, help="answers to rate; 50 tell a share to about ±10 %")] = 50,
    raters: Annotated[int, typer.Option(min=1, max=9, help="different people who rate each answer")] = 2,
    days: Annotated[float, typer.Option(min=0.01, help="how far back answers are drawn from")] = 30.0,
    seed: Annotated[int | None, typer.Option(help="the same seed and lake draw the same sample")] = None,
    question: Annotated[str, typer.Option(help="what raters are asked; not given: whether they would use it")] = "",
) -> None:
    """Draw a blind, de-identified sample of an agent's recent answers.

    Answers are spread over bands of quality, scenario classes and arms, small groups more than their share; the report
    weighs that back. PAWL_API_KEY must hold a key with role operator or admin.
    """
    from pawl.curation.quality import qualities
    from pawl.qe.tasks import task_of
    from pawl.review.sample import QUESTION, draw
    from pawl.scrubbing.scrubber_presidio import open_scrubber

    settings = Settings()
    key = acting_key("operator", "admin")
    spec = bootstrap.fleet(settings).agent(agent)
    task = task_of(spec.task)
    lake, now = bootstrap.lake(settings), time.time()
    since = now - days * DAY_S
    # Not what earlier reviews said: the score is to be compared with what raters say.
    told = [f for f in lake.feedback(agent, since) if not f.source.startswith("review:")]
    drawn = draw(
        agent,
        lake.interactions(agent, since),
        qualities(told, spec.data.quality),
        open_scrubber(names=True),
        lambda i: task.scenario_of(i.messages, i.completion),
        items=items,
        seed=secrets.randbelow(2**31) if seed is None else seed,
        now=now,
        raters=raters,
        question=question or QUESTION,
    )
    is_new = _reviews(settings).add(drawn)
    detail = {"review": drawn.sheet.id, "agent": agent, "items": len(drawn.sheet.items), "seed": drawn.hidden.seed}
    bootstrap.control(settings).audit("review drawn", key.name, detail, now)
    population = sum(drawn.hidden.population.values())
    typer.echo(
        f"review {drawn.sheet.id}{'' if is_new else ' is there already'}: {len(drawn.sheet.items)} of {population:,} "
        f"answers, {len(drawn.hidden.population)} strata, seed {drawn.hidden.seed}, {raters} raters each"
    )
    found = ", ".join(f"{n} {kind}" for kind, n in sorted(drawn.hidden.scrubbed.items()))
    typer.echo(f"replaced before anybody sees it: {found or 'nothing was found'}")
    typer.echo(f"next: pawl review serve {agent} --rater NAME --rater NAME, or pawl review rate {agent} --rater NAME")


@app.command("list")
def list_reviews(agent: Agent) -> None:
    """An agent's reviews and how far they are."""
    from pawl.review.sample import progress

    reviews = _reviews(Settings())
    for sheet in reviews.all(agent):
        far = progress(sheet, reviews.ratings(agent, sheet.id), "")
        day = time.strftime("%Y-%m-%d", time.gmtime(sheet.at))
        typer.echo(f"{sheet.id}  {day}  {len(sheet.items)} answers  {far.given} of {far.wanted} ratings")


@app.command("rate")
def rate(
    agent: Agent,
    rater: Annotated[str, typer.Option(help="who rates; kept with each rating")],
    which: Which = "",
) -> None:
    """Rate in this terminal. Stop with q or Ctrl-C and go on later: each rating is on the disk as you give it."""
    from rich.console import Console

    from pawl.review import terminal_rich
    from pawl.review.sample import progress, rater_name

    reviews, name = _reviews(Settings()), rater_name(rater)
    sheet = reviews.choose(agent, which)
    try:
        terminal_rich.rate(reviews, sheet, name, Console(), terminal_rich.prompt_line, terminal_rich.editor)
    except KeyboardInterrupt:
        typer.echo()
    far = progress(reviews.sheet(agent, sheet.id), reviews.ratings(agent, sheet.id), name)
    rest = f"{far.left} left for you; the same command goes on" if far.left else "nothing left for you"
    typer.echo(f"{name} has rated {far.mine} answers, {rest}. All raters: {far.given} of {far.wanted} ratings.")


@app.command("serve")
def serve(
    agent: Agent,
    rater: Annotated[list[str], typer.Option(help="a person who gets a link; once for each")],
    port: Annotated[int, typer.Option(min=0, max=65_535, help="0: any that is free")] = 0,
    which: Which = "",
) -> None:
    """Serve the raters' page on this machine until Ctrl-C; prints a link for each rater.

    A link works once, in the tab that opens it. Ratings are on the disk when the page says so: ending the server loses
    nothing, and starting it again gives new links. From another machine: ssh -L PORT:127.0.0.1:PORT this-machine, with
    --port. PAWL_API_KEY must hold a key with role operator or admin.
    """
    from pawl.review import page
    from pawl.review.sample import rater_name

    settings = Settings()
    key = acting_key("operator", "admin")
    reviews = _reviews(settings)
    sheet = reviews.choose(agent, which)
    names = list(dict.fromkeys(map(rater_name, rater)))
    desk = page.Desk(names)
    listener = page.listen(settings.host, port)
    place = f"http://{settings.host}:{listener.getsockname()[1]}/"
    detail = {"review": sheet.id, "agent": agent, "raters": names}
    bootstrap.control(settings).audit("review served", key.name, detail, time.time())
    typer.echo(f"review {sheet.id} of {agent}, {len(sheet.items)} answers, {sheet.raters} raters each; Ctrl-C ends it")
    for token, name in desk.links.items():
        typer.echo(f"{name}: {place}#{token}")
    if len(names) < sheet.raters:
        typer.echo(f"each answer needs {sheet.raters} different raters; give --rater again for the others")
    page.serve(page.application(reviews, agent, sheet.id, desk), listener)


@app.command("finish")
def finish(agent: Agent, which: Which = "") -> None:
    """Put the ratings and corrections into the lake. Doing it again adds only what is new.

    PAWL_API_KEY must hold a key with role operator or admin.
    """
    from pawl.review.sample import progress
    from pawl.review.verdicts import feedback

    settings = Settings()
    key = acting_key("operator", "admin")
    reviews, lake = _reviews(settings), bootstrap.lake(settings)
    sheet = reviews.choose(agent, which)
    found = reviews.sample(agent, sheet.id)
    # A person may have been erased since: what was said of their answers goes too.
    wanted = {f.interaction for f in found.hidden.facts}
    gone = wanted - lake.owners(wanted).keys()
    if gone:
        reviews.forget(gone)
        found = reviews.sample(agent, sheet.id)
        typer.echo(f"{len(gone)} answer(s) are no longer in the lake and were taken out of the review")
    ratings = reviews.ratings(agent, sheet.id)
    made = feedback(found, ratings, key.id)
    added = lake.add(made)
    detail = {"review": sheet.id, "agent": agent, "records": added}
    bootstrap.control(settings).audit("review finished", key.name, detail, time.time())
    far = progress(found.sheet, ratings, "")
    corrections = sum(f.kind == "correction" for f in made)
    typer.echo(
        f"{len(made) - corrections} ratings and {corrections} corrections, {added} new in the lake; "
        f"{far.given} of {far.wanted} ratings are given"
    )


@app.command("report")
def report(agent: Agent, which: Which = "") -> None:
    """How many answers are right, how far raters agree, and what the quality score is worth.

    The share of right answers is that of all the agent's answers in the sample's window, with a 95 % interval. Kappa
    and alpha are 1 where raters always agree and 0 where they agree as by chance; below about 0.6 settle first what
    "right" means. The calibration is kept in PAWL_HOME/reviews.
    """
    from rich.console import Console, Group

    from pawl.review import terminal_rich
    from pawl.review.calibration import Calibration
    from pawl.review.calibration_sklearn import fit
    from pawl.review.verdicts import pairs

    reviews = _reviews(Settings())
    sheet = reviews.choose(agent, which)
    found, ratings = reviews.sample(agent, sheet.id), reviews.ratings(agent, sheet.id)

    def calibrated() -> Group:
        made = fit(agent, sheet.id, pairs(found, ratings))
        if isinstance(made, Calibration):
            reviews.save(f"{agent}-calibration", made)
        return terminal_rich.calibration(made)

    terminal_rich.report(Console(), found, ratings, calibrated)


def _reviews(settings: Settings) -> Reviews:
    from pawl.review.files import Reviews

    return Reviews(settings.reviews_dir)
