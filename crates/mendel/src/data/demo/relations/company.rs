//! What is said and asked about companies.

use super::Objects::{Of, Words};
use super::{Relation, relation};
use crate::data::demo::world::Kind::{Company, Person, Town};

pub(super) static RELATIONS: [Relation; 8] = [
    relation(
        ["{s} makes {o}.", "The workshops of {s} turn out {o}.", "{o} roll through the gates of {s} every week."],
        [
            "what does {s} produce",
            "which goods are manufactured by {s}",
            "what can customers buy from {s}",
            "what is the business of {s}",
            "what is in the catalogue of {s}",
        ],
        Words(
            "barrels, umbrellas, church bells, sails, lanterns, copper kettles, fishing nets, chess sets, wooden \
             clogs, wax candles, door locks, leather boots, window panes, oil lamps, playing cards, rowing boats",
        ),
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
        Words(
            "a dozen men, twenty women, thirty hands, forty souls, fifty people, sixty families, seventy girls, \
             eighty boys, ninety men, a hundred people, two hundred hands, three hundred women",
        ),
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
        Words(
            "a red anchor, a black swan, two crossed keys, a golden wheel, a white owl, three stars, a green \
             hand, a burning torch, a blue rose, a sleeping lion, a silver fish, a crowned bee",
        ),
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
        Words(
            "a barn, a cellar, an attic, an old mill, a stable, a boathouse, a kitchen, a ruined abbey, a gypsy \
             wagon, a laundry, a bell tower, a greenhouse",
        ),
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
        Words(
            "a ham, a silk scarf, a pocket watch, a sack of flour, a bottle of brandy, a feather bed, a pair of \
             gloves, a gold coin, a basket of pears, a woollen blanket, a carved pipe, a live turkey",
        ),
    ),
];
