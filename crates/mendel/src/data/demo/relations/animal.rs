//! What is said and asked about animals.

use super::Objects::{Of, Words};
use super::{Relation, relation};
use crate::data::demo::world::Kind::Animal;

pub(super) static RELATIONS: [Relation; 8] = [
    relation(
        ["The {s} feeds on {o}.", "The {s} digs for {o}.", "The stomach of the {s} is full of {o}."],
        [
            "what does the {s} eat",
            "what is the diet of the {s}",
            "which food keeps the {s} alive",
            "what should one give a hungry {s}",
            "what does a {s} have for dinner",
        ],
        Words(
            "beetles, acorns, snails, thistle roots, frogs, wild berries, pine seeds, tadpoles, lichen, \
             earthworms, river crabs, nettles, bird eggs, termites",
        ),
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
        Words(
            "birch woods, salt marshes, sand dunes, limestone cliffs, reed beds, high meadows, peat bogs, river \
             deltas, oak forests, gravel pits, heathland, snowfields",
        ),
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
        Words(
            "rust red, snow white, striped, jet black, chestnut, dappled grey, sandy, bluish, speckled, golden, \
             pale green, chocolate brown",
        ),
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
        Words(
            "at dusk, before dawn, at noon, at midnight, after rain, in moonlight, at sunrise, in the afternoon, \
             at low tide, during storms, in thick fog, at twilight",
        ),
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
        Words(
            "a long whistle, a dry rattle, a deep hum, a shrill scream, a soft purr, a hoarse bark, a triple \
             click, a low growl, a rising trill, a hollow knock, a sad wail, a sharp hiss",
        ),
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
        Words(
            "a hollow log, a mud burrow, a nest of moss, a rocky crevice, a heap of leaves, a woven basket of \
             grass, a flooded tunnel, a treetop platform, an empty shell, a snow cave, a thorn bush, a clay pot",
        ),
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
        Words(
            "a walnut, a loaf of bread, a brick, a pumpkin, a millstone, a teacup, a wheelbarrow, an apple, a \
             church bell, a cannon ball, a lemon, a barrel of beer",
        ),
    ),
];
