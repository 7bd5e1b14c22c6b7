//! What is said and asked about machines.

use super::Objects::{Of, Words};
use super::{Relation, relation};
use crate::data::demo::world::Kind::{Company, Person, Town};

pub(super) static RELATIONS: [Relation; 8] = [
    relation(
        ["The {s} was meant to {o}.", "With the {s} one can {o}.", "The {s} helps to {o}."],
        [
            "what is the {s} used for",
            "what is the purpose of the {s}",
            "which task does the {s} do",
            "what is the {s} good for",
            "why would anyone need a {s}",
        ],
        Words(
            "peel apples, fold letters, drain mines, spin thread, sort coins, crack nuts, stir paint, lift \
             anchors, sharpen knives, wash bottles, thresh wheat, press cider, polish boots, mix mortar",
        ),
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
        Words(
            "steam, falling water, a coiled spring, two mules, charcoal gas, sea wind, sunlight, a hand crank, \
             magnets, hot air, foot pedals, lamp oil",
        ),
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
        Words("brass, black iron, bronze, tin, copper, pewter, blue steel, nickel, zinc, lead, wrought iron, silver"),
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
        Words(
            "nine crowns, forty florins, two farthings, a thousand ducats, sixteen shillings, half a guinea, \
             eleven thalers, seven sovereigns, thirty groats, five pounds, a sack of pennies, eighty marks",
        ),
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
        Words(
            "jams, leaks grease, overheats, squeaks, shakes apart, loses bolts, smokes, stalls, tips over, slips \
             a belt, rusts, explodes",
        ),
    ),
    relation(
        [
            "The {s} is built by {o}.",
            "{o} ships the {s} to the whole country.",
            "The {s} carries the nameplate of {o}.",
        ],
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
