//! The entities of the demo world, the facts about them and the passages that state the facts.

use super::relations::{Objects, relations_of};
use crate::random::SplitMix64;

/// What sort of thing an entity is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Person,
    Town,
    Company,
    Animal,
    Machine,
}

const KINDS: [Kind; 5] = [Kind::Person, Kind::Town, Kind::Company, Kind::Animal, Kind::Machine];
const ENTITIES_PER_KIND: usize = 68;

/// How an entity's eight facts are spread over passages.
const SPREADS: [&[usize]; 3] = [&[1, 1, 1, 1, 2, 2], &[1, 1, 1, 1, 1, 3], &[1, 1, 2, 2, 2]];

/// How many passages in a hundred drop another entity's name, and how many end in a remark that states nothing.
const MENTION_PERCENT: usize = 35;
const REMARK_PERCENT: usize = 30;

const MENTIONS: [&str; 6] = [
    "Just ask {m}.",
    "The same cannot be said of {m}.",
    "That is no secret to anyone who knows {m}.",
    "So it says in the old song about {m}.",
    "It is quite unlike {m}.",
    "A letter about {m} tells of this too.",
];

const REMARKS: [&str; 8] = [
    "It is what everybody in the valley will tell you.",
    "There is no doubt of that.",
    "That is how it has been for many years.",
    "Children learn this in school.",
    "What more is there to say?",
    "Few who hear of it are surprised.",
    "This is the first thing that one is told.",
    "Where else would you hear of such a thing?",
];

/// One thing of the world.
pub(super) struct Entity {
    pub kind: Kind,
    pub name: String,
    pronoun: &'static str,
}

/// That the entity `subject` has the relation `relation` (an index into its kind's) to something, as `passage` states.
pub(super) struct Fact {
    pub subject: usize,
    pub relation: usize,
    pub passage: usize,
}

/// Everything there is. Each fact is stated in exactly one passage.
pub(super) struct World {
    pub entities: Vec<Entity>,
    pub facts: Vec<Fact>,
    pub passages: Vec<String>,
}

impl World {
    /// The world that these random numbers make.
    pub(super) fn new(random: &mut SplitMix64) -> World {
        let entities: Vec<Entity> = KINDS.iter().flat_map(|&kind| entities_of(kind, random)).collect();
        let mut world = World { entities, facts: Vec::new(), passages: Vec::new() };
        for subject in 0..world.entities.len() {
            let mut relations: Vec<usize> = (0..relations_of(world.entities[subject].kind).len()).collect();
            random.shuffle(&mut relations);
            let mut rest = relations.as_slice();
            for &size in *random.pick(&SPREADS) {
                let (stated, later) = rest.split_at(size);
                world.add_passage(subject, stated, random);
                rest = later;
            }
        }
        world
    }

    fn add_passage(&mut self, subject: usize, relations: &[usize], random: &mut SplitMix64) {
        let passage = self.passages.len();
        let mut sentences: Vec<String> = Vec::new();
        for (place, &relation) in relations.iter().enumerate() {
            sentences.push(self.statement(subject, relation, place > 0, random));
            self.facts.push(Fact { subject, relation, passage });
        }
        if random.percent(MENTION_PERCENT) {
            let mentioned = &self.entities[self.another(subject, self.entities[subject].kind, random)];
            sentences.push(random.pick(&MENTIONS).replace("{m}", &mentioned.with_article()));
        } else if random.percent(REMARK_PERCENT) {
            sentences.push(random.pick(&REMARKS).to_string());
        }
        self.passages.push(sentences.join(" "));
    }

    /// A sentence about the subject, which `after_first` may call "it" where the sentence begins with it.
    fn statement(&self, subject: usize, relation: usize, after_first: bool, random: &mut SplitMix64) -> String {
        let entity = &self.entities[subject];
        let relation = &relations_of(entity.kind)[relation];
        let object = match &relation.objects {
            Objects::Words(words) => random.pick(&words.split(", ").collect::<Vec<_>>()).to_string(),
            Objects::Of(kind) => self.entities[self.another(subject, *kind, random)].name.clone(),
        };
        let template = *random.pick(&relation.statements);
        let of_subject = template.strip_prefix("{s} ").or_else(|| template.strip_prefix("The {s} "));
        let sentence = match of_subject {
            Some(rest) if after_first => format!("{} {rest}", entity.pronoun),
            _ => template.replace("{s}", &entity.name),
        };
        capitalised(&sentence.replace("{o}", &object))
    }

    /// An entity of `kind` that is not `subject`.
    pub(super) fn another(&self, subject: usize, kind: Kind, random: &mut SplitMix64) -> usize {
        loop {
            let entity = random.below(self.entities.len());
            if entity != subject && self.entities[entity].kind == kind {
                return entity;
            }
        }
    }
}

impl Entity {
    fn with_article(&self) -> String {
        match self.kind {
            Kind::Animal | Kind::Machine => format!("the {}", self.name),
            Kind::Person | Kind::Town | Kind::Company => self.name.clone(),
        }
    }
}

const SURNAME_STARTS: [&str; 6] = ["Ta", "Ve", "O", "Ma", "Bri", "Ke"];
const SURNAME_ENDS: [&str; 5] = ["rrow", "nnick", "skel", "ddern", "lby"];
const DEVICES: [&str; 12] =
    ["loom", "pump", "press", "lathe", "crane", "mangle", "churn", "grinder", "winch", "bellows", "furnace", "plough"];
const TRADES: [&str; 12] = [
    "Ropeworks",
    "Foundry",
    "Mills",
    "Brothers",
    "Shipyard",
    "Brewery",
    "Pottery",
    "Trading",
    "Ironworks",
    "Glassworks",
    "Sawmill",
    "Printers",
];
const SPECIES_STARTS: [&str; 5] = ["vel", "mur", "plo", "sna", "tri"];
const SPECIES_ENDS: [&str; 4] = ["mit", "ddle", "vark", "nix"];
const COATS: [&str; 12] = [
    "marsh", "crested", "lesser", "greater", "horned", "bearded", "dwarf", "mountain", "river", "spotted", "masked",
    "shy",
];
const GIVEN_STARTS: [&str; 6] = ["Or", "Mi", "Jo", "Sa", "Te", "El"];
const GIVEN_ENDS: [(&str, &str); 4] = [("la", "She"), ("ren", "He"), ("vin", "He"), ("dra", "She")];
const TOWN_STARTS: [&str; 6] = ["Tes", "Hol", "Gar", "Win", "Fal", "Har"];
const TOWN_ENDS: [&str; 4] = ["kel", "mer", "ton", "wick"];
const TOWN_PARTS: [&str; 10] = ["Haven", "Bridge", "Hill", "Cross", "Abbey", "Ford", "Castle", "Moor", "Heath", "Quay"];

/// The entities of a kind: all names are of two parts, each of which other entities have too.
fn entities_of(kind: Kind, random: &mut SplitMix64) -> Vec<Entity> {
    let surnames = joined(&SURNAME_STARTS, &SURNAME_ENDS);
    let mut all: Vec<Entity> = match kind {
        Kind::Person => joined_pairs(&GIVEN_STARTS, &GIVEN_ENDS)
            .iter()
            .flat_map(|(given, pronoun)| surnames.iter().map(move |surname| (format!("{given} {surname}"), *pronoun)))
            .map(|(name, pronoun)| Entity { kind, name, pronoun })
            .collect(),
        Kind::Town => named(kind, &joined(&TOWN_STARTS, &TOWN_ENDS), &TOWN_PARTS),
        Kind::Company => named(kind, &surnames, &TRADES),
        Kind::Animal => named(kind, &COATS, &joined(&SPECIES_STARTS, &SPECIES_ENDS)),
        Kind::Machine => named(kind, &surnames, &DEVICES),
    };
    random.shuffle(&mut all);
    all.truncate(ENTITIES_PER_KIND);
    all
}

fn named(kind: Kind, firsts: &[impl AsRef<str>], seconds: &[impl AsRef<str>]) -> Vec<Entity> {
    let entity = |first: &str, second: &str| Entity { kind, name: format!("{first} {second}"), pronoun: "It" };
    firsts.iter().flat_map(|first| seconds.iter().map(move |second| entity(first.as_ref(), second.as_ref()))).collect()
}

fn joined(starts: &[&str], ends: &[&str]) -> Vec<String> {
    starts.iter().flat_map(|start| ends.iter().map(move |end| format!("{start}{end}"))).collect()
}

fn joined_pairs(starts: &[&str], ends: &[(&str, &'static str)]) -> Vec<(String, &'static str)> {
    starts.iter().flat_map(|start| ends.iter().map(move |(end, with)| (format!("{start}{end}"), *with))).collect()
}

fn capitalised(sentence: &str) -> String {
    let mut letters = sentence.chars();
    letters.next().into_iter().flat_map(char::to_uppercase).chain(letters).collect()
}
