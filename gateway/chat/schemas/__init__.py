"""JSON schemas as answers are held to them: first in the keywords that a grammar can have, exactly; then
tightened, so that weak models come to an end."""
