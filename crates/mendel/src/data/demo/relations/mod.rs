//! What the demo world can say and ask: per kind of entity eight relations, each stated in three ways and asked in five.
//!
//! The questions use other telling words than the statements (a test holds this), so that a question and its passage
//! share little more than the entity's name, which many other passages have too.

mod animal;
mod company;
mod machine;
mod person;
mod town;

use super::world::Kind;

/// What a relation's object is drawn from.
pub(super) enum Objects {
    /// Fixed phrases, with ", " between.
    Words(&'static str),
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
        Kind::Person => &person::RELATIONS,
        Kind::Town => &town::RELATIONS,
        Kind::Company => &company::RELATIONS,
        Kind::Animal => &animal::RELATIONS,
        Kind::Machine => &machine::RELATIONS,
    }
}

const fn relation(statements: [&'static str; 3], questions: [&'static str; 5], objects: Objects) -> Relation {
    Relation { statements, questions, objects }
}
