//! What is said and asked about people.

use super::Objects::{Of, Words};
use super::{Relation, relation};
use crate::data::demo::world::Kind::{Animal, Company, Person, Town};

pub(super) static RELATIONS: [Relation; 8] = [
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
        Words(
            "a cooper, a baker, a thatcher, a midwife, a clockmaker, a ferryman, a glazier, a tanner, a \
             bookbinder, a beekeeper, a lamplighter, a surveyor, a saddler, a miller, a roofer, a barber",
        ),
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
        Words(
            "the fiddle, the bagpipes, the harp, the lute, the tin whistle, the kettle drum, the cello, the horn, \
             the mandolin, the accordion, the flute, the zither, the organ, the banjo",
        ),
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
        Words(
            "smoked eel, onion soup, plum dumplings, barley broth, fried herring, goat cheese, honey cake, \
             pickled beets, mushroom pie, rabbit stew, buttered turnips, pea pudding, roast goose, rye bread",
        ),
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
        Words(
            "spiders, deep water, thunder, geese, mirrors, high ladders, the dark, horses, masks, needles, moths, \
             narrow caves, fireworks, snakes",
        ),
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
