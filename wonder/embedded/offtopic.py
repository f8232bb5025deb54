"""Text that is no ticket at all, by topic; the topics of training and of the held-out split are disjoint."""

import random
from collections.abc import Mapping
from typing import Final

from wonder.embedded.foreign import plain_statement
from wonder.embedded.splits import Split

TRAIN_TOPICS: Final[Mapping[str, tuple[str, ...]]] = {
    "cooking": (
        "Fry the onions in butter until they are golden.",
        "Add a pinch of salt and let the soup simmer for an hour.",
        "Fold the egg whites into the batter.",
        "Serve with rice and a slice of lemon.",
    ),
    "weather": (
        "Tomorrow will be cloudy with showers in the north.",
        "A cold front brings snow above a thousand metres.",
        "The wind turns to the west in the afternoon.",
        "Fog lies in the valleys until noon.",
    ),
    "football": (
        "The keeper saved a penalty in the last minute.",
        "United won three to one away from home.",
        "The striker has scored in five games in a row.",
        "Fans sang long after the final whistle.",
    ),
    "history": (
        "The old bridge was built by the Romans.",
        "In 1648 the long war came to an end.",
        "The king fled the capital at night.",
        "Traders carried silk and spices along this road.",
    ),
    "animals": (
        "The fox sleeps during the day.",
        "Owls turn their heads almost all the way round.",
        "A herd of deer crossed the river at dawn.",
        "Whales sing to each other over great distances.",
    ),
    "gardening": (
        "Prune the roses in early spring.",
        "Tomatoes like warm soil and much sun.",
        "Sow the carrots in rows a hand apart.",
        "Cover the beds with straw before the frost.",
    ),
    "music": (
        "The second movement is slow and sad.",
        "She plays the cello in a quartet.",
        "The choir rehearses in the old chapel.",
        "He wrote the tune on a napkin.",
    ),
    "stories": (
        "Once upon a time a miller had three sons.",
        "The dragon slept on its gold.",
        "She opened the door and found the room empty.",
        "They walked until the forest ended.",
    ),
    "science": (
        "Light takes eight minutes from the sun to the earth.",
        "Water expands when it freezes.",
        "The cell wall keeps the plant upright.",
        "Iron rusts in damp air.",
    ),
    "numbers": (
        "Seven times eight is fifty-six.",
        "The sum of the angles is one hundred and eighty degrees.",
        "One two three four five six seven.",
        "A prime has exactly two divisors.",
    ),
    "films": (
        "The second half of the film drags a little.",
        "She plays a detective who never sleeps.",
        "The director shot it all in black and white.",
        "Critics loved the ending.",
    ),
    "small talk": (
        "How are you today?",
        "What a lovely evening it is.",
        "I had pancakes for breakfast.",
        "Did you sleep well?",
    ),
    "requests to a machine": (
        "Write a poem about autumn.",
        "Translate this sentence into French.",
        "What is the capital of Peru?",
        "Tell me a joke about cats.",
    ),
    "latin": (
        "Lorem ipsum dolor sit amet.",
        "Consectetur adipiscing elit, sed do eiusmod tempor.",
        "Ut enim ad minim veniam.",
        "Quis nostrud exercitation ullamco laboris.",
    ),
    "german": (
        "Der Hund schläft unter dem Tisch.",
        "Morgen fahren wir an den See.",
        "Das Wetter war gestern besser.",
        "Sie liest jeden Abend ein Buch.",
    ),
    "code": (
        "for i in range(10): print(i)",
        "SELECT name FROM cities WHERE size > 5;",
        "if (x == 0) { return y; }",
        "import math; x = math.sqrt(2)",
    ),
    "health": (
        "A short walk after lunch is good for the heart.",
        "Children need more sleep than grown-ups.",
        "Stretch your legs before you run.",
        "Drink enough water on hot days.",
    ),
    "city life": (
        "The tram stops in front of the museum.",
        "The market square is full of people on Saturdays.",
        "A new café has opened beside the theatre.",
        "The old town hall gets a new roof.",
    ),
}
"""Topics seen in training."""

HELD_OUT_TOPICS: Final[Mapping[str, tuple[str, ...]]] = {
    "astronomy": (
        "Saturn's rings are mostly made of ice.",
        "The comet will be visible low above the horizon.",
        "Two galaxies merge over a billion years.",
        "A telescope in the desert watches the southern sky.",
        "The moon covers the planet for a few minutes.",
    ),
    "chess": (
        "White gives up a pawn for the centre.",
        "The bishop pair is strong in open positions.",
        "Black castled too late and lost the rook.",
        "The endgame was a draw by repetition.",
        "He studied openings for years.",
    ),
    "mountains": (
        "The north face was first climbed in winter.",
        "Above the hut the path gets steep and stony.",
        "They set up camp below the glacier.",
        "From the summit you can see three countries.",
        "Ropes and crampons are needed after June.",
    ),
    "painting": (
        "He mixed the blue from crushed stone.",
        "The portrait hangs in a gallery in Vienna.",
        "Short brush strokes make the water glitter.",
        "The canvas was painted over twice.",
        "Her late works are almost abstract.",
    ),
    "sailing": (
        "Trim the jib before you tack.",
        "The schooner rounded the cape in heavy seas.",
        "We anchored in a quiet bay.",
        "The tide turns at four.",
        "A good knot never slips.",
    ),
    "spanish": (
        "Mañana vamos a la playa con los niños.",
        "El perro duerme en la cocina.",
        "Me gusta leer por la noche.",
        "La casa de mi abuela es muy vieja.",
        "Hace mucho frío en las montañas.",
    ),
    "philosophy": (
        "Nobody steps into the same river twice.",
        "To know that one knows nothing is a beginning.",
        "Is a ship still the same when all its planks are new?",
        "The good life, he wrote, is a life of questions.",
        "Words are tools, not pictures.",
    ),
    "markup": (
        "<div class='box'><p>hello world</p></div>",
        "{'x': [1, 2, 3], 'y': null}",
        "## Heading one\n* first\n* second",
        "body { margin: 0; colour: black }",
        "<svg width='10' height='10'></svg>",
    ),
}
"""Topics kept for the held-out split."""


def off_topic(rng: random.Random, split: Split) -> str:
    """Return one to three sentences on topics of training, or on those kept for the held-out split."""
    if split == "train" and rng.random() < 0.5:
        return " ".join(plain_statement(rng, split) for _ in range(rng.randint(1, 3)))
    topics = TRAIN_TOPICS if split == "train" else HELD_OUT_TOPICS
    sentences = topics[rng.choice(list(topics))]
    if split == "train" and rng.random() < 0.3:
        sentences = tuple(sentence for topic in topics.values() for sentence in topic)
    return " ".join(rng.sample(sentences, rng.randint(1, 3)))
