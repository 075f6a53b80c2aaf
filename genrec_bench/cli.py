"""The command line: one verb, one module below `commands`."""

from __future__ import annotations

import argparse
import importlib
import io
import sys
from collections.abc import Sequence

from genrec_bench.core.ending import exit_code, signals_as_ctrl_c
from genrec_bench.core.errors import UserError, nearest

VERBS = {
    "run": "run a suite and render its report (`--suite NAME` alone means this)",
    "tune": "try settings that a suite declares, and choose by validation",
    "plan": "show which runs of a suite are done, failed or missing, and the time left",
    "list": "list datasets, tokenizers, backbones, objectives, metrics, suites, baselines or profiles",
    "report": "render reports from records alone",
    "compare": "train a new objective and test it against the stored baselines",
    "check": "check a plug-in against the contract that all of its kind keep",
    "diagnose": "measure what beam search throws away in finished runs",
    "evaluate": "score a ranking file of your own or a checkpoint",
    "merge": "move finished records of one or more folders into another",
    "export": "write metrics or ranks of finished runs as one long table, CSV or Parquet",
    "data": "list, check, fetch or convert datasets",
}


class Parser(argparse.ArgumentParser):
    """argparse whose errors are one line with the nearest match."""

    def error(self, message: str) -> None:
        raise UserError(f"{message} (see `{self.prog} --help`)")

    def parse_args(self, args: Sequence[str] | None = None,
                   namespace: argparse.Namespace | None = None) -> argparse.Namespace:
        known, rest = None, []
        try:
            known, rest = self.parse_known_args(args, namespace)
        except UserError:  # a misspelt option is what is wrong, not that the right one is missing
            if self._subparsers is None:
                rest = [word for word in args or () if word.startswith("--")
                        and word.partition("=")[0] not in self._option_string_actions]
            if not rest:
                raise
        if rest:
            options = [o for parser in (self, *self._parts()) for o in parser._option_string_actions]
            match = nearest(rest[0].split("=")[0], options) if rest[0].startswith("-") else None
            hint = f" Did you mean {match}?" if match else ""
            raise UserError(f"unknown option or argument {rest[0]!r}.{hint} See `{self.prog} --help`.")
        return known

    def _parts(self) -> list[argparse.ArgumentParser]:
        """The parsers of `data list`, `data check` and the like; what they do not know ends up here."""
        return [parser for action in self._actions if isinstance(action, argparse._SubParsersAction)
                for parser in action.choices.values()]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code: 0 done, 1 a run failed, 2 a mistake of the user's, 130 Ctrl-C.

    SIGTERM (143) and SIGHUP (129) end it like Ctrl-C.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a letter that the output has no code for is written as its number
            stream.reconfigure(errors="backslashreplace")
    try:
        with signals_as_ctrl_c():
            return _dispatch(words)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as stopped:
        return _interrupted(stopped)
    except RuntimeError as error:  # Python 3.11 wraps what is raised while a class is made, as in an import
        if not isinstance(error.__cause__, KeyboardInterrupt):
            raise
        return _interrupted(error.__cause__)
    except BrokenPipeError:
        sys.stderr.close()
        return 0
    except OSError as error:  # no rights, a full disk, a folder that cannot be made
        where = f"{error.filename}: " if error.filename is not None else ""
        print(f"error: {where}{error.strerror or error}. Choose another folder (--results, --reports), or "
              "see to its rights and to free space.", file=sys.stderr)
        return 2


def _interrupted(stopped: KeyboardInterrupt) -> int:
    print("\ninterrupted. What is done stays; the same command goes on.", file=sys.stderr)
    return exit_code(stopped)


def _dispatch(words: list[str]) -> int:
    for word in words:
        if not word.isascii() and any("\ud800" <= letter <= "\udfff" for letter in word):  # bytes that are no text
            raise UserError(f"{word!r} is not UTF-8 text, which records are written in. Rename the file or folder, or "
                            "set PYTHONUTF8=1 where the name is right and the locale is not.")
    plugins, words = _plugins(words)
    if words and words[0].startswith("-") and words[0] not in ("-h", "--help", "--version"):
        words = ["run", *words]
    if not words or words[0].startswith("-"):
        return _overview(words)
    verb = words[0]
    if verb not in VERBS:
        match = nearest(verb, VERBS)
        hint = f" Did you mean {match!r}?" if match else ""
        raise UserError(f"unknown command {verb!r}.{hint} Commands: {', '.join(VERBS)}.")
    module = importlib.import_module(f"genrec_bench.commands.{verb}")
    parser = Parser(prog=f"benchmark.py {verb}", description=VERBS[verb], allow_abbrev=False)
    module.add_arguments(parser)
    for part in (parser, *parser._parts()):
        _add_plugin(part)  # for --help; the options themselves have been taken out
    args = parser.parse_args(words[1:])
    args.plugins = plugins
    if plugins:
        from genrec_bench.running.plugin_file import load_plugins

        load_plugins(plugins)
    return module.run(args)


def _plugins(words: list[str]) -> tuple[tuple[str, ...], list[str]]:
    """The values of `--plugin`, wherever they are, and the other words."""
    parser = Parser(prog="benchmark.py", add_help=False, allow_abbrev=False)
    _add_plugin(parser)
    found, rest = parser.parse_known_args(words)
    return tuple(dict.fromkeys(found.plugins)), rest


def _add_plugin(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--plugin", action="append", default=[], metavar="FILE.py", dest="plugins",
                        help="load your own data sets, tokenizers, backbones, objectives, metrics or baselines; may be "
                             "repeated")


def _overview(words: list[str]) -> int:
    if "--version" in words:
        from genrec_bench.core.provenance import own_version

        print(f"genrec-bench {own_version()}")
        return 0
    print("usage: benchmark.py COMMAND [options]\n       benchmark.py --suite NAME [options]\n\ncommands:")
    for verb, text in VERBS.items():
        print(f"  {verb:<9} {text}")
    print("\n`benchmark.py COMMAND --help` lists a command's options. All take --plugin FILE.py.")
    return 0 if words else 2
