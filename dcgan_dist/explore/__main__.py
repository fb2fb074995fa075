"""`python -m dcgan_dist.explore WHAT RUN`: the paper's explorations, with controls, into RUN/explore."""

import argparse
import shlex
import sys
from collections.abc import Callable, Sequence

from dcgan_dist.explore import arithmetic, filters, forget_windows, neighbours, turn, underfit, walk
from dcgan_dist.judge import exemplars, judge
from dcgan_dist.run_folder import finding, untrusted
from dcgan_dist.run_folder.finding import ExploreError, Finding
from dcgan_dist.run_folder.opened_run import Subject, open_subject
from shards.command import command
from shards.storage import store
from shards.storage.paths import argument

CHOOSING = """Samples of a concept are chosen by a small network taught on the dataset's labels; by
--labels, a json {"3": {"glasses": 1, "boxes": {"window": [l, t, r, b]}}} about the numbered sheet, which
`judge` writes; or by --pick."""


def _choose(
    subject: Subject, args: argparse.Namespace, defaults: list[dict[str, str]]
) -> exemplars.Exemplars:
    given = {name: getattr(args, name) for name in defaults[0]}
    if args.pick:
        concepts = dict.fromkeys(defaults[0], "")
    elif all(given.values()):
        concepts = given
    elif any(given.values()):
        raise ExploreError(f"give all of {', '.join(f'--{name}' for name in given)}, or none")
    else:
        concepts = exemplars.first_known(defaults, subject)
    return exemplars.choose(subject, picks=_picks(args.pick), labels=args.labels, concepts=concepts)


def _picks(words: Sequence[str]) -> dict[str, str]:
    picks = {}
    for word in words:
        name, equals, numbers = word.partition("=")
        if not equals:
            raise ExploreError(f"--pick {word!r} is not like a=3,17,42")
        picks[name] = numbers
    return picks


def _judge(subject: Subject, args: argparse.Namespace) -> Finding:
    drawn = exemplars.sheet(subject)
    folder = untrusted.folder(subject.run, "explore")
    store.make_folder(folder)
    url = store.join(folder, "sheet.png")
    store.write_bytes(url, exemplars.numbered(drawn))
    print(f"numbered sheet: {url}")
    return judge.explore(subject, labels=args.labels, sheet=drawn)


def _forget(subject: Subject, args: argparse.Namespace) -> Finding:
    labels = exemplars.metas_of(args.labels)
    return forget_windows.explore(subject, target=args.target, layer=args.layer, labels=labels)


METHODS: dict[str, tuple[str, Callable[[Subject, argparse.Namespace], Finding]]] = {
    "judge": ("teach the judge; write the numbered sheet; with --labels, judge the judge on it", _judge),
    "walk": ("interpolation in z, beside pixels (figure 4)", lambda s, a: walk.explore(s)),
    "filters": ("guided backpropagation, beside random weights (figure 5)", lambda s, a: filters.explore(s)),
    "forget": ("drop the maps that draw windows, beside random ones (figure 6)", _forget),
    "arithmetic": (
        "A - B + C in z, beside pixels (figure 7)",
        lambda s, a: arithmetic.explore(s, _choose(s, a, arithmetic.DEFAULTS)),
    ),
    "turn": (
        "a direction in z (figure 8)",
        lambda s, a: turn.explore(s, _choose(s, a, turn.DEFAULTS)),
    ),
    "neighbours": (
        "nearest training pictures, beside held-out ones",
        lambda s, a: neighbours.explore(s, held_out=a.held_out),
    ),
    "underfit": (
        "samples over training and repeated textures (figures 2, 3)",
        lambda s, a: underfit.explore(s.run, data=a.data, seed=a.seed),
    ),
}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python -m dcgan_dist.explore",
        description="The paper's looks inside the networks, each with its control, into RUN/explore.",
        epilog=CHOOSING,
    )
    methods = parser.add_subparsers(dest="method", required=True, metavar="WHAT")
    for name, (told, _) in METHODS.items():
        method = methods.add_parser(name, help=told, description=told, epilog=CHOOSING)
        method.add_argument("run", type=argument, help="run folder or URL")
        method.add_argument("--step", type=int, help="checkpoint to explore (default: the newest)")
        method.add_argument("--data", type=argument, help="dataset (default: the one the run was trained on)")
        method.add_argument("--seed", type=int, default=0, help="other z for another seed (default: 0)")
        _add_own(method, name)
    return parser


def _add_own(method: argparse.ArgumentParser, name: str) -> None:
    if name in ("judge", "forget", "arithmetic", "turn"):
        method.add_argument("--labels", type=argument, help="json: what samples of the numbered sheet show")
    if name == "forget":
        method.add_argument("--target", default="window", help="object to forget (default: window)")
        method.add_argument("--layer", help="channels@side (default: the second highest, as the paper)")
    if name == "neighbours":
        method.add_argument(
            "--held-out", type=argument, required=True, help="dataset that was not trained on"
        )
    concepts = {"arithmetic": arithmetic.DEFAULTS, "turn": turn.DEFAULTS}.get(name, [{}])[0]
    for concept, example in concepts.items():
        method.add_argument(f"--{concept}", metavar="CONCEPT", help=f"such as {example}")
    if concepts:
        names = " ".join(f"{concept}=3,17,42" for concept in concepts)
        method.add_argument("--pick", nargs="+", default=[], help=f"numbers of the sheet, such as {names}")


@command
def main(argv: Sequence[str]) -> int:
    """The command line. Errors of the user's making are one line."""
    args = _parser().parse_args(argv)
    subject = open_subject(args.run, step=args.step, data=args.data, seed=args.seed)
    found = METHODS[args.method][1](subject, args)
    command = shlex.join(["python", "-m", "dcgan_dist.explore", *argv])
    url = finding.save(found, args.run, step=subject.step, command=command)
    print(f"{found.title} ({found.paper}), step {subject.step}:\n{finding.lines(found)}\nin {url}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
