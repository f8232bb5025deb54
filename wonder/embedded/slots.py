"""The words that fill the slots of ticket sentences, and the syllables of made-up product names."""

from typing import Final

ITEMS: Final[tuple[str, ...]] = (
    "kettle",
    "desk lamp",
    "headset",
    "coffee machine",
    "smart scale",
    "printer",
    "router",
    "keyboard",
    "monitor",
    "webcam",
    "air purifier",
    "electric heater",
    "toaster",
    "vacuum cleaner",
    "speaker",
    "e-bike charger",
    "laptop",
    "tablet",
    "phone",
    "television",
    "fridge",
    "blender",
    "lamp",
    "charger",
    "mouse",
    "drill",
    "mixer",
    "grill",
    "heater",
    "fan",
    "backpack",
    "jacket",
    "sweater",
    "dress",
    "coat",
    "shirt",
    "helmet",
    "watch",
    "tent",
    "desk",
    "chair",
    "bed",
    "mug",
)
CITIES: Final = ("Leeds", "Vienna", "Porto", "Ghent", "Austin", "Cork", "Basel", "Lyon", "Oslo", "Turin")
PEOPLE: Final = ("Ana", "Ben Carter", "M. Okoye", "Priya", "Jonas", "Lena Weber", "T. Silva", "Yuki", "Sam")
DAYS: Final[tuple[str, ...]] = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
MONTHS: Final[tuple[str, ...]] = (
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
)
SYLLABLES: Final[tuple[str, ...]] = (
    "ba", "bri", "ca", "cor", "da", "del", "dri", "el", "fa", "fen", "gra", "hu", "il", "jo", "ka", "kel", "li",
    "lor", "ma", "mor", "na", "nex", "o", "ol", "pa", "pri", "qua", "ra", "rin", "sa", "sol", "ta", "tri", "u",
    "ul", "va", "ven", "wi", "xa", "xen", "yo", "za", "zor",
)  # fmt: skip
ENDINGS: Final[tuple[str, ...]] = (
    "dex", "ra", "ron", "vo", "lix", "ta", "mint", "nix", "lo", "rick", "va", "tron", "ello", "ora", "ane", "id",
)  # fmt: skip
