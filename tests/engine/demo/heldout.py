"""Sixty questions that the demo models never see in training, each with patterns of a right answer."""

from __future__ import annotations

from typing import NamedTuple


class HeldOut(NamedTuple):
    """A question, its category and the patterns that must all be found in the answer, in any letter case."""

    category: str
    question: str
    patterns: tuple[str, ...]


WHAT_IT_IS = (r"gateway", r"models")
FALLS_ASLEEP = (r"idle", r"sleep")
LEVEL_ONE = (r"(cpu )?ram", r"kv cache")
LEVEL_TWO = (r"files", r"dropped")
DEMO_ONLY = (r"only a small demo model",)
WHO = (r"small demo model",)

HELD_OUT = (
    HeldOut("dormouse", "What is this Dormouse thing all about?", WHAT_IT_IS),
    HeldOut("dormouse", "so what does dormouse actually do", WHAT_IT_IS),
    HeldOut("dormouse", "Give me a one sentence summary of Dormouse.", WHAT_IT_IS),
    HeldOut("dormouse", "Never heard of Dormouse, what is it?", WHAT_IT_IS),
    HeldOut("dormouse", "How does the sleeping of models work?", FALLS_ASLEEP),
    HeldOut("dormouse", "what happens when a model is idle?", FALLS_ASLEEP),
    HeldOut("dormouse", "When will a model fall asleep?", FALLS_ASLEEP),
    HeldOut("dormouse", "nobody uses my model for a while, what happens then", FALLS_ASLEEP),
    HeldOut("dormouse", "explain level 2 sleep", LEVEL_TWO),
    HeldOut("dormouse", "What is sleep level one?", LEVEL_ONE),
    HeldOut("dormouse", "And what would level two sleep be?", LEVEL_TWO),
    HeldOut(
        "dormouse",
        "In which way are level 1 and level 2 different?",
        (r"level 1", r"level 2", r"ram", r"files"),
    ),
    HeldOut("dormouse", "How can I get a sleeping model to wake up again?", (r"next request", r"wake")),
    HeldOut(
        "dormouse", "Which things outlive the sleep of a model?", (r"addresses", r"graphs", r"tokenizers")
    ),
    HeldOut("dormouse", "whats done with the kv cache during sleep", (r"kv cache", r"dropped")),
    HeldOut("dormouse", "Where are the weights kept while a model is at level 1?", (r"ram",)),
    HeldOut("dormouse", "How would I talk to Dormouse from the OpenAI Python SDK?", (r"base_url",)),
    HeldOut("dormouse", "is there a curl example for a chat request", (r"curl", r"/v1/chat/completions")),
    HeldOut("dormouse", "In what file do the settings go?", (r"config\.toml",)),
    HeldOut("dormouse", "how to get it going with docker", (r"docker run",)),
    HeldOut("dormouse", "Can I change how long a model may idle?", (r"idle timeout", r"config\.toml")),
    HeldOut("dormouse", "What is the point of sending models to sleep?", (r"memory",)),
    HeldOut("who", "Who am I talking to?", WHO),
    HeldOut("who", "what kind of bot are you", WHO),
    HeldOut("who", "Tell me what you are able to do.", (r"dormouse", r"sums", r"spell", r"count")),
    HeldOut("sums", "What's 7 plus 5?", (r"\b12\b",)),
    HeldOut("sums", "7+5=?", (r"\b12\b",)),
    HeldOut("sums", "could you add seven and five for me", (r"\b12\b",)),
    HeldOut("sums", "If I put 3 and 8 together, what do I get?", (r"\b11\b",)),
    HeldOut("sums", "how much would nine plus nine make", (r"\b18\b",)),
    HeldOut("sums", "Kindly work out 6 + 13.", (r"\b19\b",)),
    HeldOut("sums", "What remains of 9 after subtracting 4?", (r"\b5\b",)),
    HeldOut("sums", "fifteen minus six please", (r"\b9\b",)),
    HeldOut("sums", "I need the sum of 2 and 14", (r"\b16\b",)),
    HeldOut("sums", "do you know what 10 - 3 is", (r"\b7\b",)),
    HeldOut("spelling", "please spell the word tiger", (r"t-i-g-e-r\b",)),
    HeldOut("spelling", "How would I spell pumpkin?", (r"p-u-m-p-k-i-n\b",)),
    HeldOut("spelling", "which letters make up the word lemon", (r"l-e-m-o-n\b",)),
    HeldOut("spelling", "Spelling of 'harvest', please.", (r"h-a-r-v-e-s-t\b",)),
    HeldOut("spelling", "can u spell brick", (r"b-r-i-c-k\b",)),
    HeldOut("spelling", "Spell out gravel for me, letter after letter.", (r"g-r-a-v-e-l\b",)),
    HeldOut("spelling", "I forgot how violin is spelled", (r"v-i-o-l-i-n\b",)),
    HeldOut("counting", "Please count up to 9.", (r"1, 2, 3, 4, 5, 6, 7, 8, 9\b(?!,)",)),
    HeldOut("counting", "count for me from four to eleven", (r"\b4, 5, 6, 7, 8, 9, 10, 11\b(?!,)",)),
    HeldOut("counting", "Let me hear you count to six!", (r"1, 2, 3, 4, 5, 6\b(?!,)",)),
    HeldOut("counting", "Count backwards starting at 5.", (r"\b5, 4, 3, 2, 1\b",)),
    HeldOut("counting", "How many letters does the word garden have?", (r"\b6\b",)),
    HeldOut("counting", "number of letters in the word house?", (r"\b5\b",)),
    HeldOut("smalltalk", "hi there!", (r"hello|\bhi\b",)),
    HeldOut("smalltalk", "Hey, how are things going?", (r"fine|well|good",)),
    HeldOut("smalltalk", "thanks a bunch, that helped", (r"welcome",)),
    HeldOut("smalltalk", "see you around!", (r"goodbye|bye",)),
    HeldOut("smalltalk", "A very good morning to you", (r"morning|hello",)),
    HeldOut("smalltalk", "that was really well done", (r"thank",)),
    HeldOut("elsewhere", "Which city is the capital of Portugal?", DEMO_ONLY),
    HeldOut("elsewhere", "Compose a short poem on autumn leaves.", DEMO_ONLY),
    HeldOut("elsewhere", "who won the football world cup in 1998", DEMO_ONLY),
    HeldOut("elsewhere", "My bicycle chain is broken, how do I repair it?", DEMO_ONLY),
    HeldOut("elsewhere", "will it rain in Hamburg tomorrow", DEMO_ONLY),
    HeldOut("elsewhere", "Translate 'good evening' into Spanish, please.", DEMO_ONLY),
)
