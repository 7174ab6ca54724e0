"""`dormouse chat`: a conversation in the terminal, streamed; or one question and its answer."""

from __future__ import annotations

import argparse
import io
import json
import sys

from rich.console import Console

from gateway.commands import INTERRUPTED, CommandError
from gateway.commands.client import Client
from gateway.commands.conversation import Conversation
from gateway.commands.telling import tell
from gateway.near import nearest

HELP = {
    "/model NAME": "go on with another model; it is told all that was said",
    "/models": "the models there are",
    "/clear": "forget what was said",
    "/help": "these commands",
    "/exit": "leave, as Ctrl-D does",
}


def run(args: argparse.Namespace) -> int:
    _take_any_bytes()
    conversation = Conversation(Client(args), args.model)
    console = Console(highlight=False)
    question: str | None = args.question
    if question is None and not sys.stdin.isatty():
        question = sys.stdin.read().strip()
    if question is not None:
        return _answer_once(conversation, question, console, args.json)
    if args.json or not console.is_terminal:
        raise CommandError("a conversation needs a terminal; for one answer name a question, or pipe it in")
    _converse(conversation, console)
    return 0


def _take_any_bytes() -> None:
    """What is typed or piped in may not be UTF-8; that is told when it is to be sent."""
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(encoding="utf-8", errors="surrogateescape")


def _answer_once(conversation: Conversation, question: str, console: Console, as_json: bool) -> int:
    if not question:
        raise CommandError("the question is empty")
    if not as_json:
        return INTERRUPTED if tell(conversation, question, console) else 0
    pieces = list(conversation.ask(question))
    content, reasoning = (
        "".join(piece.text for piece in pieces if piece.reasoning is kind) for kind in (False, True)
    )
    print(json.dumps({"model": conversation.model, "content": content, "reasoning": reasoning or None}))
    return 0


def _converse(conversation: Conversation, console: Console) -> None:
    from gateway.commands.chat_input import history, questions

    console.print(f"Chatting with {conversation.model}. /help tells more; Ctrl-D leaves.", markup=False)
    with history():
        for typed in questions():
            if typed in ("/exit", "/bye", "/quit"):
                return
            try:
                if typed.startswith("/"):
                    _command(conversation, typed)
                else:
                    tell(conversation, typed, console)
            except CommandError as error:
                console.print(str(error), style="red", markup=False, soft_wrap=True)


def _command(conversation: Conversation, typed: str) -> None:
    name, _, words = typed.partition(" ")
    match name, words.strip():
        case "/model", "":
            print(conversation.model)
        case "/model", model:
            conversation.model = conversation.find(model)
            print(f"Now with {conversation.model}.")
        case "/models", _:
            for model in conversation.models():
                print("*" if model == conversation.model else " ", model)
        case "/clear", _:
            conversation.messages.clear()
            print("Forgotten.")
        case "/help", _:
            print(*(f"{command:12} {what}" for command, what in HELP.items()), sep="\n")
            print('"""          begins and ends a question of several lines')
        case _:
            near = nearest(name, (command.split()[0] for command in HELP))
            raise CommandError(f"no command {name}" + (f"; did you mean {near}?" if near else "; see /help"))
