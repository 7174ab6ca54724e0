"""`dormouse completion SHELL`: a script for it, which asks `dormouse completion words` at every Tab."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

from gateway.commands import CommandError
from gateway.commands.client import Client
from gateway.config_text import Mistake, read_toml

BASH: Final = r"""
# eval "$(dormouse completion bash)", here or in ~/.bashrc
_dormouse() {
    local IFS=$'\n' word cut words=() line
    line=${COMP_LINE#*"${COMP_WORDS[0]}"}
    for word in "${COMP_WORDS[@]:1:COMP_CWORD}"; do
        if [[ $line == [[:space:]]* || ${#words[@]} == 0 ]]; then
            words+=("$word")
            line=${line#"${line%%[![:space:]]*}"}
        else
            words[-1]+=$word  # bash has split a word, as at the colon of a model's name
        fi
        line=${line#"$word"}
    done
    COMPREPLY=($(dormouse completion words -- "${words[@]}" 2>/dev/null))
    word=${words[-1]}
    cut=${word%"${word##*["$COMP_WORDBREAKS"]}"}
    COMPREPLY=("${COMPREPLY[@]#"$cut"}")
}
complete -o default -F _dormouse dormouse
"""
ZSH: Final = r"""
#compdef dormouse
# eval "$(dormouse completion zsh)" after compinit, or in a file _dormouse on the fpath
_dormouse() {
    local -a found
    found=(${(f)"$(dormouse completion words -- "${(@)words[2,CURRENT]}" 2>/dev/null)"})
    if (( $#found )); then compadd -a found; else _files; fi
}
compdef _dormouse dormouse
"""
FISH: Final = r"""
# dormouse completion fish | source, or into ~/.config/fish/completions/dormouse.fish
function __dormouse
    set -l typed (commandline -opc)
    set -l partial (commandline -ct)
    set -l found (dormouse completion words -- $typed[2..-1] "$partial" 2>/dev/null)
    if set -q found[1]
        printf '%s\n' $found
    else
        __fish_complete_path "$partial"
    end
end
complete -c dormouse -f -a '(__dormouse)'
"""
SCRIPTS: Final = {"bash": BASH, "zsh": ZSH, "fish": FISH}
PATIENCE: Final = 0.5
"""Seconds that a gateway has to tell its models."""


def run(args: argparse.Namespace) -> int:
    if args.shell == "words":
        for word in complete(args.declared, args.words or [""]):
            print(word)
    else:
        print(SCRIPTS[args.shell].strip())
    return 0


def complete(parser: argparse.ArgumentParser, words: Sequence[str]) -> list[str]:
    """What the last of the words, which may be empty, can become; nothing where it is a file."""
    *whole, partial = words
    typed = [part for word in whole for part in (word.split("=", 1) if word.startswith("--") else [word])]
    place = 0
    value_of: argparse.Action | None = None
    for word in typed:
        if value_of is not None:
            value_of = None
        elif word.startswith("-"):
            value_of = _waiting_for_value(parser, word)
        elif isinstance(action := _positional(parser, place), argparse._SubParsersAction):
            if word not in action.choices:
                return []
            parser, place = action.choices[word], 0
        else:
            place += 1
    if value_of is None and partial.startswith("-"):
        found: Iterable[str] = _options(parser)
    else:
        found = _values(value_of or _positional(parser, place), parser, typed)
    return [word for word in found if word.startswith(partial)]


def _options(parser: argparse.ArgumentParser) -> Iterator[str]:
    for action in parser._actions:
        yield from (option for option in action.option_strings if option.startswith("--"))


def _waiting_for_value(parser: argparse.ArgumentParser, word: str) -> argparse.Action | None:
    for action in parser._actions:
        if word in action.option_strings:
            return action if action.nargs != 0 else None
    return None


def _positional(parser: argparse.ArgumentParser, place: int) -> argparse.Action | None:
    """The last one may take many."""
    actions = [action for action in parser._actions if not action.option_strings]
    if place < len(actions):
        return actions[place]
    return actions[-1] if actions and actions[-1].nargs == "*" else None


def _values(
    action: argparse.Action | None, parser: argparse.ArgumentParser, typed: Sequence[str]
) -> Iterable[str]:
    if action is None:
        return ()
    if action.choices is not None:
        return [str(choice) for choice in action.choices]
    if action.metavar == "MODEL":
        return _models(parser, typed)
    return ()


def _models(parser: argparse.ArgumentParser, typed: Sequence[str]) -> list[str]:
    """Of the gateway, where the verb talks to one that answers; else of the configuration."""
    options = {action.dest: _given(action, typed) for action in parser._actions if action.option_strings}
    try:
        if "url" in options:
            with closing(Client(argparse.Namespace(**options), timeout=PATIENCE)) as client:
                models = client.get("/v1/models")["data"]
                return [name for model in models for name in (model["id"], *model["aliases"])]
    except CommandError:
        pass
    try:
        return list(read_toml(Path(options.get("config") or "config.toml")).get("models", {}))
    except Mistake:
        return []


def _given(action: argparse.Action, typed: Sequence[str]) -> Any:
    """The value that an option has in what was typed, or its default."""
    given = [value for option, value in pairwise(typed) if option in action.option_strings]
    return given[-1] if given else action.default
