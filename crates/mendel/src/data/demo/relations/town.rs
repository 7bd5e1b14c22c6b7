//! What is said and asked about towns.

use super::Objects::{Of, Words};
use super::{Relation, relation};
use crate::data::demo::world::Kind::{Person, Town};

pub(super) static RELATIONS: [Relation; 8] = [
    relation(
        ["{s} lies on the banks of {o}.", "{o} flows past {s}.", "The walls of {s} are washed by {o}."],
        [
            "which river runs through {s}",
            "what water is {s} next to",
            "by which stream was {s} built",
            "what do boats to {s} sail on",
            "on what waterway is {s} found",
        ],
        Words(
            "the Issel, the Blackwater, the Tarn, the Orm, the Lesser Ouse, the Greyling, the Wend, the Sorrow, \
             the Little Amber, the Rushing Dunn, the Pell, the Mirk, the Silver Lave, the Cold Arrow",
        ),
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
        Words(
            "a leaning tower, a glass bridge, the hanging gardens, a singing fountain, a painted chapel, the rope \
             museum, a giant sundial, the lantern festival, a stone giant, a spiral staircase, the whale \
             skeleton, a hedge maze, the silent bells, a floating theatre",
        ),
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
        Words("1204, 1237, 1268, 1291, 1315, 1342, 1377, 1409, 1433, 1486, 1512, 1540, 1568, 1599"),
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
        Words(
            "Mondays, Tuesdays, Wednesdays, Thursdays, Fridays, Saturdays, Sundays, the eve of May, midsummer \
             morning, the last of October, every full moon, the first of March",
        ),
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
        Words(
            "a great fire, a spring flood, an earthquake, a landslide, the plague, a long siege, a hailstorm, a \
             dust storm, an avalanche, a swarm of locusts, a whirlwind, a bitter frost",
        ),
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
        Words(
            "salt, amber, wool, blue clay, tallow, cork, dried cod, hemp, marble, saffron, peat, resin, oysters, \
             chalk",
        ),
    ),
];
