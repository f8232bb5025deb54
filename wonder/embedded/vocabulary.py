"""Ordinary English words by theme, none of which tells a team: what foreign sentences are made of."""

from typing import Final

THEMES: Final[dict[str, str]] = {
    "home": (
        "attic balcony basement bathroom bathtub bedroom bench blanket bookcase brick broom bucket carpet ceiling "
        "chair chimney cloth corridor couch cradle cupboard curtain cushion drawer fence floor furniture gate hallway "
        "hammock hinge lantern lawn mattress nail pillow porch quilt roof rug shelf shower sink sofa staircase stool "
        "table towel tub vase wall wardrobe yard doormat hook tile candlestick rocking-chair"
    ),
    "food": (
        "almond bacon banana barley basil bean beef beer biscuit bread broccoli butter cabbage cake carrot cheese "
        "cherry chicken chocolate cinnamon coconut cookie corn cream cucumber dessert dinner dough egg fig flour "
        "garlic ginger grape honey jam juice lemon lettuce lunch meal melon milk mushroom mustard noodle nut oat "
        "olive omelette onion oyster pasta peach peanut pear pepper pie plum potato pudding pumpkin radish raisin "
        "recipe rice salad salt sandwich sauce sausage snack soup spice spinach steak strawberry stew sugar supper "
        "syrup tea tomato turnip vanilla vegetable vinegar walnut wheat"
    ),
    "animals": (
        "ant antelope badger bat bear beaver bee beetle bison butterfly calf camel cat caterpillar cow crab crane "
        "crow deer dog dolphin donkey duck eagle elephant falcon ferret fish flamingo fly fox frog gecko giraffe goat "
        "goose gorilla hamster hare hawk hedgehog hen heron herring jellyfish kangaroo kitten lamb leopard lion "
        "lizard lobster magpie mole monkey moose mosquito moth ostrich otter ox parrot peacock pelican penguin pig "
        "pigeon pony puppy rabbit raccoon raven robin rooster salmon seal shark sheep snail snake sparrow spider "
        "squirrel stork swan tiger toad trout turkey turtle walrus wasp weasel whale wren zebra"
    ),
    "nature": (
        "acorn avalanche bay beach blossom branch breeze brook bush canyon cave cliff coast comet coral creek crystal "
        "desert dew dune dust earthquake fern flood flower fog glacier grass grove hill hurricane iceberg jungle "
        "lagoon lake leaf lightning maple marsh meadow mist moon moss mountain mud oak ocean palm pebble pine planet "
        "pond puddle rainbow reef ridge root rose sand sea seed shore sky snow soil spring storm stream sun sunrise "
        "sunset swamp thorn thunder tide tulip valley volcano waterfall weed willow wind wood"
    ),
    "people": (
        "acrobat actor aunt baby-sitter barber beekeeper bishop bride butcher captain carpenter chef clown coach "
        "cousin cowboy dancer detective diver duke dwarf editor emperor fisherman gardener giant grandfather guest "
        "guide hero historian hunter juggler king knight librarian magician mayor merchant midwife miner monk "
        "musician niece novelist orphan passenger pharaoh philosopher pilgrim pilot pirate priest prince princess "
        "professor rider sailor scientist sculptor senator shepherd singer surgeon tailor thief tourist twin uncle "
        "vicar villager waiter weaver witch wizard"
    ),
    "city": (
        "airport alley avenue bakery bazaar boulevard bus cafe canal castle cathedral cemetery chapel cinema "
        "crossroads dam factory ferry fountain gallery highway hotel lighthouse metro mill monastery monument mosque "
        "motorway museum palace park pavement pier playground pub quarry railway restaurant roundabout ruins "
        "skyscraper square stadium statue street suburb subway temple theatre tollgate tram tunnel university "
        "vineyard windmill zoo"
    ),
    "leisure": (
        "accordion album anthem ball ballet banjo baseball bicycle board-game bowling camping canoe card-game "
        "carnival cello chess chorus circus clarinet comedy concert costume cricket crossword dance diary dice doll "
        "drum essay fairy-tale fiddle flute football guitar gymnastics hiking hobby hockey holiday kite marathon "
        "melody mystery novel opera orchestra origami painting parade picnic pipe-organ play poem poetry portrait "
        "puzzle quiz race riddle rugby sailing sculpture skating sketch ski snowman sonnet stamp-album surfboard "
        "swing symphony tango tent toy tragedy treasure trombone trumpet violin volleyball waltz yoga"
    ),
    "things": (
        "anchor anvil arrow axe backpack badge bag balloon banner barrel basket beard blade bone bottle bracelet "
        "brush bubble buckle cape chain chalk clock coin compass cork crown cup dagger diamond ear elbow envelope "
        "eyebrow fan-belt feather finger flag flask fork gem glove goblet gold hammer handkerchief hat helmet jar "
        "jewel jug kite-string knee knife knot lace leather lock magnet map mask medal needle net oar oven paintbrush "
        "pan paper parachute pencil pendant perfume pitchfork plank plate pocket pot powder ribbon ring rope sack "
        "saddle sandal saw scarf scissors scroll shawl shield shovel silk skirt sleeve slipper soap sock spear sponge "
        "stick stocking string suitcase sword tambourine thimble thread tin torch trousers trunk umbrella velvet "
        "violin-case wagon wand wheel whip whistle wig wire wool yarn zipper"
    ),
    "ideas": (
        "adventure advice ambition anger art beauty belief breath century childhood coincidence courage culture "
        "curiosity custom danger dawn democracy destiny doubt dream dusk education election empire energy evening "
        "evolution fame faith fate festival freedom friendship future geometry glory gossip grammar gravity grief "
        "habit happiness harmony harvest hope humour hunger hymn imagination independence joke journey joy kindness "
        "kingdom language laughter legend luck magic marriage mathematics meaning memory midnight mischief mood "
        "morning myth noon nostalgia opinion parliament past patience peace philosophy physics politics poverty pride "
        "prophecy proverb religion revolution rhythm rumour sadness science season silence skill sorrow soul speech "
        "spirit spring-time stranger summer talent theory thought tradition truth universe victory virtue voyage war "
        "wealth weather wedding-day wisdom wish wonder youth"
    ),
}
"""Nouns by theme; a hyphen stands for a space."""

ADJECTIVES: Final = (
    "absent ancient angry bald bitter bold brave brief brittle calm cheerful chilly circular civil clumsy cloudy "
    "coarse comfortable common cosy crisp cruel curious curly cute damp dangerous deaf delicate delicious dense dim "
    "distant dizzy dull dusty eager elegant enormous eternal evil exotic faint fancy fierce flat foggy foolish "
    "fragile fresh friendly fuzzy gentle ghostly gloomy graceful grand grateful greedy green-eyed gigantic hairy "
    "handsome happy harsh helpful holy honest horrible humble humid icy idle immense innocent jealous jolly juicy "
    "kind lazy lively lovely lucky magical mad mellow merry mighty misty modern modest mysterious naked nasty neat "
    "nervous noble odd orange pale peaceful pink plain playful pleasant polite poor proud pure purple rare raw "
    "reckless rich ripe romantic rotten rude rusty sacred sad salty savage scary selfish shiny shy silent silly "
    "sleepy slim slippery sly smooth soft solemn sour spicy splendid square steep sticky stormy stubborn sunny tame "
    "tasty tender thick thin thirsty tidy tiny tropical ugly unhappy vain vast violet warm weak-kneed wet wicked wise "
    "witty wooden yellow"
)
"""Adjectives."""

VERBS: Final = (
    "admire/admired adore/adored annoy/annoyed applaud/applauded bake/baked bathe/bathed bite/bit blame/blamed "
    "bless/blessed blow/blew boil/boiled borrow/borrowed bury/buried carve/carved catch/caught chase/chased "
    "chew/chewed climb/climbed collect-up/collected-up comb/combed compose/composed cook/cooked count/counted "
    "cover/covered crush/crushed cure/cured decorate/decorated defend/defended describe/described dig/dug "
    "discuss/discussed dislike/disliked dream-of/dreamed-of drink/drank drown/drowned dye/dyed eat/ate "
    "embrace/embraced envy/envied examine/examined explore/explored fear/feared fold/folded follow/followed "
    "forgive/forgave fry/fried gather/gathered greet/greeted grow/grew guard/guarded hate/hated hear/heard hide/hid "
    "hug/hugged hunt/hunted imagine/imagined imitate/imitated invent/invented juggle/juggled kick/kicked kiss/kissed "
    "knit/knitted lick/licked lift/lifted light/lit love/loved melt/melted mend/mended milk/milked mix/mixed "
    "mock/mocked mow/mowed nibble/nibbled notice/noticed obey/obeyed observe/observed paint/painted peel/peeled "
    "photograph/photographed pinch/pinched plant/planted plough/ploughed polish/polished praise/praised "
    "predict/predicted pull/pulled punish/punished push/pushed rake/raked rehearse/rehearsed rescue/rescued ride/rode "
    "roast/roasted rub/rubbed sail/sailed salute/saluted scare/scared scratch/scratched sculpt/sculpted sew/sewed "
    "shake/shook sharpen/sharpened shout-at/shouted-at sing/sang sketch/sketched slap/slapped slice/sliced "
    "smell/smelled soak/soaked spill/spilled spin/spun splash/splashed squeeze/squeezed stir/stirred study/studied "
    "swallow/swallowed sweep/swept taste/tasted teach/taught tease/teased throw/threw tickle/tickled tie/tied "
    "touch/touched trim/trimmed trust/trusted visit/visited wash/washed water/watered weave/wove weigh/weighed "
    "whisper-to/whispered-to wind/wound wipe/wiped worship/worshipped wrap/wrapped wrestle/wrestled"
)
"""Verbs, base form and past."""
