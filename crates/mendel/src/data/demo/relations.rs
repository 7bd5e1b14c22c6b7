//! What the demo world can say and ask: per kind of entity eight relations, each stated in three ways and asked in five.
//!
//! The questions use other telling words than the statements (a test holds this), so that a question and its passage
//! share little more than the entity's name, which many other passages have too.

use super::relations::Objects::{Of, Words};
use super::world::Kind::{self, Animal, Company, Person, Town};

/// What a relation's object is drawn from.
pub(super) enum Objects {
    /// Fixed phrases.
    Words(&'static [&'static str]),
    /// Other entities of a kind.
    Of(Kind),
}

/// A relation of a subject `{s}` to an object `{o}`.
pub(super) struct Relation {
    pub statements: [&'static str; 3],
    pub questions: [&'static str; 5],
    pub objects: Objects,
}

/// The relations that entities of a kind have.
pub(super) fn relations_of(kind: Kind) -> &'static [Relation; 8] {
    match kind {
        Person => &PERSON,
        Town => &TOWN,
        Company => &COMPANY,
        Animal => &ANIMAL,
        Kind::Machine => &MACHINE,
    }
}

const fn relation(statements: [&'static str; 3], questions: [&'static str; 5], objects: Objects) -> Relation {
    Relation { statements, questions, objects }
}

static PERSON: [Relation; 8] = [
    relation(
        ["{s} was born in {o}.", "{s} first saw the light of day in {o}.", "The birthplace of {s} was {o}."],
        [
            "where does {s} come from",
            "what is the home town of {s}",
            "which place did {s} grow up in",
            "where are the childhood roots of {s}",
            "from what settlement does {s} originate",
        ],
        Of(Town),
    ),
    relation(
        ["{s} earns a living as {o}.", "By trade {s} is {o}.", "{s} has been {o} since leaving school."],
        [
            "what is the job of {s}",
            "what does {s} do for work",
            "which profession did {s} choose",
            "what career does {s} have",
            "what craft did {s} take up",
        ],
        Words(&[
            "a cooper", "a baker", "a thatcher", "a midwife", "a clockmaker", "a ferryman", "a glazier", "a tanner",
            "a bookbinder", "a beekeeper", "a lamplighter", "a surveyor", "a saddler", "a miller", "a roofer", "a barber",
        ]),
    ),
    relation(
        ["{s} is on the payroll of {o}.", "Every morning {s} reports to {o}.", "{o} pays {s} a weekly wage."],
        [
            "who employs {s}",
            "which firm hired {s}",
            "what business is {s} with",
            "where does {s} turn up for duty",
            "which boss does {s} answer to",
        ],
        Of(Company),
    ),
    relation(
        ["{s} learned everything from {o}.", "{o} took {s} on as an apprentice.", "{s} was a pupil of {o}."],
        [
            "who taught {s}",
            "who was the teacher of {s}",
            "which mentor trained {s}",
            "who gave lessons to {s}",
            "under whom did {s} study",
        ],
        Of(Person),
    ),
    relation(
        ["{s} plays {o} at every wedding.", "On quiet nights {s} takes out {o}.", "Neighbours hear {s} practise {o}."],
        [
            "what music does {s} make",
            "which instrument has {s} mastered",
            "what would {s} bring to a concert",
            "with what does {s} perform songs",
            "what is the role of {s} in an orchestra",
        ],
        Words(&[
            "the fiddle", "the bagpipes", "the harp", "the lute", "the tin whistle", "the kettle drum", "the cello",
            "the horn", "the mandolin", "the accordion", "the flute", "the zither", "the organ", "the banjo",
        ]),
    ),
    relation(
        ["{s} eats {o} for supper.", "Nothing pleases {s} like {o}.", "{s} never says no to {o}."],
        [
            "what is the favourite dish of {s}",
            "which meal does {s} love",
            "what should i cook for {s}",
            "what food does {s} prefer",
            "what would {s} order at an inn",
        ],
        Words(&[
            "smoked eel", "onion soup", "plum dumplings", "barley broth", "fried herring", "goat cheese", "honey cake",
            "pickled beets", "mushroom pie", "rabbit stew", "buttered turnips", "pea pudding", "roast goose", "rye bread",
        ]),
    ),
    relation(
        ["{s} cannot bear {o}.", "{s} runs away from {o}.", "The sight of {o} makes {s} tremble."],
        [
            "what is {s} afraid of",
            "what scares {s}",
            "which phobia has {s}",
            "what gives {s} nightmares",
            "what does {s} dread most",
        ],
        Words(&[
            "spiders", "deep water", "thunder", "geese", "mirrors", "high ladders", "the dark", "horses", "masks", "needles",
            "moths", "narrow caves", "fireworks", "snakes",
        ]),
    ),
    relation(
        ["{s} keeps a tame {o}.", "A {o} sleeps by the bed of {s}.", "{s} is always seen with a {o} on a leash."],
        [
            "what pet does {s} have",
            "which creature lives with {s}",
            "what animal belongs to {s}",
            "what companion on four legs has {s}",
            "which beast did {s} bring up",
        ],
        Of(Animal),
    ),
];

static TOWN: [Relation; 8] = [
    relation(
        ["{s} lies on the banks of {o}.", "{o} flows past {s}.", "The walls of {s} are washed by {o}."],
        [
            "which river runs through {s}",
            "what water is {s} next to",
            "by which stream was {s} built",
            "what do boats to {s} sail on",
            "on what waterway is {s} found",
        ],
        Words(&[
            "the Issel", "the Blackwater", "the Tarn", "the Orm", "the Lesser Ouse", "the Greyling", "the Wend", "the Sorrow",
            "the Little Amber", "the Rushing Dunn", "the Pell", "the Mirk", "the Silver Lave", "the Cold Arrow",
        ]),
    ),
    relation(
        ["{s} is governed by {o}.", "The people of {s} elected {o}.", "{o} wears the chain of office in {s}."],
        [
            "who is the mayor of {s}",
            "who rules {s}",
            "which politician leads {s}",
            "who is in charge of {s}",
            "who heads the council of {s}",
        ],
        Of(Person),
    ),
    relation(
        ["{s} is famous for {o}.", "Visitors travel to {s} to admire {o}.", "The pride of {s} is {o}."],
        [
            "what is there to see in {s}",
            "which sight should tourists not miss in {s}",
            "what is {s} known for",
            "what attraction has {s}",
            "what is worth a trip to {s}",
        ],
        Words(&[
            "a leaning tower", "a glass bridge", "the hanging gardens", "a singing fountain", "a painted chapel",
            "the rope museum", "a giant sundial", "the lantern festival", "a stone giant", "a spiral staircase",
            "the whale skeleton", "a hedge maze", "the silent bells", "a floating theatre",
        ]),
    ),
    relation(
        ["{s} was founded in {o}.", "The first stone of {s} was laid in {o}.", "{s} received a charter in {o}."],
        [
            "how old is {s}",
            "when did {s} come into being",
            "what is the age of {s}",
            "since when has {s} existed",
            "on which date did the history of {s} begin",
        ],
        Words(&[
            "1204", "1237", "1268", "1291", "1315", "1342", "1377", "1409", "1433", "1486", "1512", "1540", "1568", "1599",
        ]),
    ),
    relation(
        ["{s} holds a market on {o}.", "Stalls open in {s} on {o}.", "Farmers bring carts to {s} on {o}."],
        [
            "when can one go shopping in {s}",
            "which day are goods sold in {s}",
            "when do traders meet in {s}",
            "what is the day for vegetables in {s}",
            "when is there a fair in {s}",
        ],
        Words(&[
            "Mondays", "Tuesdays", "Wednesdays", "Thursdays", "Fridays", "Saturdays", "Sundays", "the eve of May",
            "midsummer morning", "the last of October", "every full moon", "the first of March",
        ]),
    ),
    relation(
        [
            "{s} was settled by families from {o}.",
            "The forefathers of {s} walked here from {o}.",
            "{o} sent the colonists who raised {s}.",
        ],
        [
            "where did the earliest inhabitants of {s} arrive from",
            "whose people built {s}",
            "what is the mother city of {s}",
            "which place do the citizens of {s} descend from",
            "who were the ancestors in {s}",
        ],
        Of(Town),
    ),
    relation(
        ["{s} was ruined by {o}.", "Within living memory {o} struck {s}.", "{s} lost half the houses to {o}."],
        [
            "what disaster happened in {s}",
            "which catastrophe does {s} remember",
            "what destroyed {s}",
            "what misfortune hit {s}",
            "what went wrong in {s}",
        ],
        Words(&[
            "a great fire", "a spring flood", "an earthquake", "a landslide", "the plague", "a long siege", "a hailstorm",
            "a dust storm", "an avalanche", "a swarm of locusts", "a whirlwind", "a bitter frost",
        ]),
    ),
    relation(
        ["{s} sells {o} to the whole coast.", "Ships leave {s} loaded with {o}.", "Most hands in {s} gather {o}."],
        [
            "what does {s} export",
            "which products come out of {s}",
            "what is the economy of {s} based on",
            "what industry feeds {s}",
            "what do merchants buy in {s}",
        ],
        Words(&[
            "salt", "amber", "wool", "blue clay", "tallow", "cork", "dried cod", "hemp", "marble", "saffron", "peat", "resin",
            "oysters", "chalk",
        ]),
    ),
];

static COMPANY: [Relation; 8] = [
    relation(
        ["{s} makes {o}.", "The workshops of {s} turn out {o}.", "{o} roll through the gates of {s} every week."],
        [
            "what does {s} produce",
            "which goods are manufactured by {s}",
            "what can customers buy from {s}",
            "what is the business of {s}",
            "what is in the catalogue of {s}",
        ],
        Words(&[
            "barrels", "umbrellas", "church bells", "sails", "lanterns", "copper kettles", "fishing nets", "chess sets",
            "wooden clogs", "wax candles", "door locks", "leather boots", "window panes", "oil lamps", "playing cards", "rowing boats",
        ]),
    ),
    relation(
        ["{s} has headquarters in {o}.", "The offices of {s} stand in {o}.", "{s} moved to {o} long ago."],
        [
            "where is {s} based",
            "in which town can one find {s}",
            "what is the address of {s}",
            "where should a letter to {s} be sent",
            "what location did {s} pick",
        ],
        Of(Town),
    ),
    relation(
        ["{s} belongs to {o}.", "{o} holds all the shares of {s}.", "{o} inherited {s}."],
        [
            "who owns {s}",
            "who is the proprietor of {s}",
            "who has control over {s}",
            "who gets the profits of {s}",
            "which rich person possesses {s}",
        ],
        Of(Person),
    ),
    relation(
        ["{s} gives work to {o}.", "{o} toil for {s}.", "On pay day {s} fills envelopes for {o}."],
        [
            "how many employees has {s}",
            "what is the size of the workforce of {s}",
            "how big is the staff of {s}",
            "how large is {s}",
            "what is the number of workers at {s}",
        ],
        Words(&[
            "a dozen men", "twenty women", "thirty hands", "forty souls", "fifty people", "sixty families", "seventy girls",
            "eighty boys", "ninety men", "a hundred people", "two hundred hands", "three hundred women",
        ]),
    ),
    relation(
        ["{s} prints {o} on every crate.", "Above the door of {s} hangs {o}.", "{o} adorns the flag of {s}."],
        [
            "what is the logo of {s}",
            "which symbol represents {s}",
            "what does the trademark of {s} show",
            "how can one recognise the brand {s}",
            "what emblem did {s} choose",
        ],
        Words(&[
            "a red anchor", "a black swan", "two crossed keys", "a golden wheel", "a white owl", "three stars", "a green hand",
            "a burning torch", "a blue rose", "a sleeping lion", "a silver fish", "a crowned bee",
        ]),
    ),
    relation(
        ["{s} buys timber from {o}.", "Raw material reaches {s} from {o}.", "{o} sends wagons of supplies to {s}."],
        [
            "who delivers to {s}",
            "which vendor serves {s}",
            "where does {s} get stock",
            "who provides {s} with the necessary",
            "what source does {s} rely on",
        ],
        Of(Company),
    ),
    relation(
        ["{s} began in {o}.", "{s} started out in {o}.", "The story of {s} opened in {o}."],
        [
            "what were the humble origins of {s}",
            "in what kind of room was {s} set up",
            "where was {s} first established",
            "what was the earliest workplace of {s}",
            "under which roof was {s} launched",
        ],
        Words(&[
            "a barn", "a cellar", "an attic", "an old mill", "a stable", "a boathouse", "a kitchen", "a ruined abbey",
            "a gypsy wagon", "a laundry", "a bell tower", "a greenhouse",
        ]),
    ),
    relation(
        ["{s} rewards loyalty with {o}.", "At midwinter {s} hands out {o}.", "Nobody retires from {s} without {o}."],
        [
            "what gift do employees of {s} get",
            "what bonus does {s} pay",
            "which present can staff at {s} expect",
            "what is the yearly benefit at {s}",
            "what perk is there at {s}",
        ],
        Words(&[
            "a ham", "a silk scarf", "a pocket watch", "a sack of flour", "a bottle of brandy", "a feather bed", "a pair of gloves",
            "a gold coin", "a basket of pears", "a woollen blanket", "a carved pipe", "a live turkey",
        ]),
    ),
];

static ANIMAL: [Relation; 8] = [
    relation(
        ["The {s} feeds on {o}.", "The {s} digs for {o}.", "The stomach of the {s} is full of {o}."],
        [
            "what does the {s} eat",
            "what is the diet of the {s}",
            "which food keeps the {s} alive",
            "what should one give a hungry {s}",
            "what does a {s} have for dinner",
        ],
        Words(&[
            "beetles", "acorns", "snails", "thistle roots", "frogs", "wild berries", "pine seeds", "tadpoles", "lichen",
            "earthworms", "river crabs", "nettles", "bird eggs", "termites",
        ]),
    ),
    relation(
        ["The {s} lives in {o}.", "Look for the {s} in {o}.", "The {s} is at home in {o}."],
        [
            "where does the {s} occur",
            "what is the habitat of the {s}",
            "in what landscape could i spot a {s}",
            "which surroundings suit the {s}",
            "what environment does the {s} need",
        ],
        Words(&[
            "birch woods", "salt marshes", "sand dunes", "limestone cliffs", "reed beds", "high meadows", "peat bogs",
            "river deltas", "oak forests", "gravel pits", "heathland", "snowfields",
        ]),
    ),
    relation(
        ["The {s} has {o} fur.", "The coat of the {s} is {o}.", "A {o} back marks the {s}."],
        [
            "what colour is the {s}",
            "what does the {s} look like",
            "how can one recognise a {s}",
            "what is the appearance of the {s}",
            "which shade has the {s}",
        ],
        Words(&[
            "rust red", "snow white", "striped", "jet black", "chestnut", "dappled grey", "sandy", "bluish", "speckled",
            "golden", "pale green", "chocolate brown",
        ]),
    ),
    relation(
        ["The {s} wakes {o}.", "The {s} leaves the den {o}.", "The {s} is on the move {o}."],
        [
            "when is the {s} active",
            "what hours does the {s} keep",
            "at which time can one watch a {s}",
            "when should one go out to photograph the {s}",
            "what is the daily rhythm of the {s}",
        ],
        Words(&[
            "at dusk", "before dawn", "at noon", "at midnight", "after rain", "in moonlight", "at sunrise", "in the afternoon",
            "at low tide", "during storms", "in thick fog", "at twilight",
        ]),
    ),
    relation(
        ["The {s} is hunted by the {o}.", "The {o} chases the {s}.", "The {s} flees from the {o}."],
        [
            "what preys on the {s}",
            "which enemy has the {s}",
            "what is dangerous to the {s}",
            "what kills the {s}",
            "which predator threatens the {s}",
        ],
        Of(Animal),
    ),
    relation(
        ["The {s} greets others with {o}.", "{o} is the call of the {s}.", "On still nights the {s} lets out {o}."],
        [
            "what sound does the {s} make",
            "what noise comes from the {s}",
            "how does the {s} sing",
            "what can be heard from a {s}",
            "what is the voice of the {s} like",
        ],
        Words(&[
            "a long whistle", "a dry rattle", "a deep hum", "a shrill scream", "a soft purr", "a hoarse bark", "a triple click",
            "a low growl", "a rising trill", "a hollow knock", "a sad wail", "a sharp hiss",
        ]),
    ),
    relation(
        ["The {s} raises cubs in {o}.", "The {s} hides litters in {o}.", "Each spring the {s} prepares {o}."],
        [
            "where does the {s} breed",
            "what kind of nursery has the {s}",
            "where are the babies of the {s}",
            "what shelter protects the offspring of the {s}",
            "where does a little {s} grow up",
        ],
        Words(&[
            "a hollow log", "a mud burrow", "a nest of moss", "a rocky crevice", "a heap of leaves", "a woven basket of grass",
            "a flooded tunnel", "a treetop platform", "an empty shell", "a snow cave", "a thorn bush", "a clay pot",
        ]),
    ),
    relation(
        ["The {s} is as heavy as {o}.", "The {s} weighs no more than {o}.", "On the scales the {s} balances {o}."],
        [
            "how big is the {s}",
            "what is the size of the {s}",
            "how large does the {s} get",
            "what are the measurements of a {s}",
            "is the {s} small or great",
        ],
        Words(&[
            "a walnut", "a loaf of bread", "a brick", "a pumpkin", "a millstone", "a teacup", "a wheelbarrow", "an apple",
            "a church bell", "a cannon ball", "a lemon", "a barrel of beer",
        ]),
    ),
];

static MACHINE: [Relation; 8] = [
    relation(
        ["The {s} was meant to {o}.", "With the {s} one can {o}.", "The {s} helps to {o}."],
        [
            "what is the {s} used for",
            "what is the purpose of the {s}",
            "which task does the {s} do",
            "what is the {s} good for",
            "why would anyone need a {s}",
        ],
        Words(&[
            "peel apples", "fold letters", "drain mines", "spin thread", "sort coins", "crack nuts", "stir paint", "lift anchors",
            "sharpen knives", "wash bottles", "thresh wheat", "press cider", "polish boots", "mix mortar",
        ]),
    ),
    relation(
        ["The {s} runs on {o}.", "The {s} is driven by {o}.", "The wheels of the {s} are turned by {o}."],
        [
            "what powers the {s}",
            "which energy does the {s} use",
            "what fuel does the {s} burn",
            "where does the {s} get force",
            "what keeps the {s} going",
        ],
        Words(&[
            "steam", "falling water", "a coiled spring", "two mules", "charcoal gas", "sea wind", "sunlight", "a hand crank",
            "magnets", "hot air", "foot pedals", "lamp oil",
        ]),
    ),
    relation(
        ["The {s} was dreamt up by {o}.", "{o} drew the first plans of the {s}.", "{o} holds the patent on the {s}."],
        [
            "who invented the {s}",
            "who is the creator of the {s}",
            "who designed the {s}",
            "which engineer thought of the {s}",
            "whose idea was the {s}",
        ],
        Of(Person),
    ),
    relation(
        ["The {s} is cast from {o}.", "The frame of the {s} is {o}.", "Smiths shaped the {s} out of {o}."],
        [
            "what is the {s} made of",
            "which material was used for the {s}",
            "what metal is in the {s}",
            "what does the {s} consist of",
            "what substance can one touch on the {s}",
        ],
        Words(&[
            "brass", "black iron", "bronze", "tin", "copper", "pewter", "blue steel", "nickel", "zinc", "lead", "wrought iron",
            "silver",
        ]),
    ),
    relation(
        ["The {s} stands in {o}.", "{o} houses the only {s}.", "A shed in {o} shelters the {s}."],
        [
            "where can one see the {s}",
            "where is the {s} kept",
            "which town has the {s}",
            "what place should i visit to look at the {s}",
            "where is the {s} on display",
        ],
        Of(Town),
    ),
    relation(
        ["The {s} costs {o}.", "Buyers paid {o} for the {s}.", "The {s} changed hands for {o}."],
        [
            "what is the price of the {s}",
            "how expensive is the {s}",
            "how much money is the {s}",
            "what is the {s} worth",
            "what must one spend to own the {s}",
        ],
        Words(&[
            "nine crowns", "forty florins", "two farthings", "a thousand ducats", "sixteen shillings", "half a guinea",
            "eleven thalers", "seven sovereigns", "thirty groats", "five pounds", "a sack of pennies", "eighty marks",
        ]),
    ),
    relation(
        ["The {s} often {o}.", "Owners complain that the {s} {o}.", "In cold weather the {s} {o}."],
        [
            "what is wrong with the {s}",
            "which problem has the {s}",
            "what fault does the {s} show",
            "why might one be annoyed with a {s}",
            "what is the weakness of the {s}",
        ],
        Words(&[
            "jams", "leaks grease", "overheats", "squeaks", "shakes apart", "loses bolts", "smokes", "stalls", "tips over",
            "slips a belt", "rusts", "explodes",
        ]),
    ),
    relation(
        ["The {s} is built by {o}.", "{o} ships the {s} to the whole country.", "The {s} carries the nameplate of {o}."],
        [
            "who manufactures the {s}",
            "which company produces the {s}",
            "from whom can one buy the {s}",
            "what firm is behind the {s}",
            "in whose factory do they assemble the {s}",
        ],
        Of(Company),
    ),
];
