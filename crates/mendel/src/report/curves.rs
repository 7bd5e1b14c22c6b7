//! The figures of a comparison: curves over training, differences, distributions, and what the genetic part does.

use std::collections::BTreeMap;

use super::figure::{Content, Figure, Line, Row};
use super::{Report, RunHistory};
use crate::compare::{MEASURES, PRIMARY};
use crate::evaluate::embedding_quality::{Distribution, HISTOGRAM_BINS};
use crate::train::history::Row as Logged;

/// The differences between arms, with their intervals.
pub fn differences(report: &Report) -> Figure {
    let comparison = &report.comparison;
    let two_arms = comparison.arms.len() == 2;
    let mut rows = Vec::new();
    for difference in &comparison.differences {
        let shown = MEASURES.iter().filter(|(_, name)| two_arms || *name == PRIMARY);
        for (title, name) in shown {
            let compared = &difference.measures[*name];
            let Some(test) = &compared.test else { continue };
            let pair = format!("{} − {}", difference.arm, difference.reference);
            rows.push(Row {
                label: if two_arms { (*title).into() } else { pair },
                colour: 0,
                value: compared.difference,
                interval: (test.ci95.low, test.ci95.high),
            });
        }
    }
    let title = match comparison.differences.first().filter(|_| two_arms) {
        Some(difference) => format!("{} − {}: difference and 95% interval", difference.arm, difference.reference),
        None => "MRR@10: differences between arms and 95% intervals".into(),
    };
    figure(
        "differences",
        &title,
        ["difference of the mean over queries", ""],
        Content::Intervals { rows, around_zero: true },
    )
}

/// One figure per number that is logged over training.
pub fn over_training(report: &Report) -> Vec<Figure> {
    let logged = [
        ("training_loss", "Training loss", "InfoNCE loss of the step's batch, nats", 0),
        ("learning_rate", "Learning rate", "learning rate", 1),
        ("gradient_norm", "Gradient norm", "global norm before clipping", 2),
        ("throughput", "Training speed", "pairs per second", 3),
    ];
    let mut figures: Vec<Figure> =
        vec![evaluated(report, "evaluation_loss", "Evaluation loss", "InfoNCE loss in batches, nats", "loss")];
    for (title, name) in MEASURES {
        figures.push(evaluated(report, &name.replace('@', "_at_"), title, &format!("{title}, whole corpus"), name));
    }
    for (name, title, unit, place) in logged {
        let value = |row: &Logged| match row {
            Logged::Step { step, loss, learning_rate, gradient_norm, pairs_per_second, .. } => {
                Some((*step, [*loss, *learning_rate, *gradient_norm, *pairs_per_second][place]))
            }
            _ => None,
        };
        let at = if place == 0 { 0 } else { figures.len() };
        figures.insert(at, figure(name, title, ["optimizer steps", unit], Content::Lines(by_arm(report, value))));
    }
    figures
}

fn evaluated(report: &Report, file: &str, title: &str, unit: &str, measure: &str) -> Figure {
    let value = |row: &Logged| match row {
        Logged::Evaluation { step, measures, .. } => measures.get(measure).map(|value| (*step, *value)),
        _ => None,
    };
    figure(file, title, ["optimizer steps", unit], Content::Lines(by_arm(report, value)))
}

/// Cosines of positive pairs, shaded, and of random pairs, per arm: densities of the first seed's.
pub fn distributions(report: &Report) -> Figure {
    let mut lines = Vec::new();
    for (colour, arm) in report.comparison.arms.iter().enumerate() {
        let quality = &arm.seeds[0].numbers.embedding_quality;
        let mut line = |what: &str, distribution: &Distribution, area| {
            let (label, points) = (format!("{}, {what} pairs", arm.arm), density(distribution));
            lines.push(Line { label, colour, points, area, ..Line::default() });
        };
        line("positive", &quality.positive_pairs, true);
        if let Some(random) = &quality.random_pairs {
            line("random", random, false);
        }
    }
    figure("cosines", "Cosine of positive (shaded) and random pairs", ["cosine", "density"], Content::Lines(lines))
}

/// What the genetic part does, over training and by head; nothing where no arm has it.
pub fn genetics(report: &Report) -> Vec<Figure> {
    let parts = [
        (
            "modulation",
            "How far the gene fitness is from uniform",
            "root mean square of d·γ − 1, mean and range over heads",
        ),
        ("selection", "Opportunity for selection", "variance of φ over its mean squared, mean and range over heads"),
        ("ancestry_entropy", "Entropy of the ancestry", "share of the largest, mean and range over heads"),
    ];
    let mut figures = Vec::new();
    for (name, title, unit) in parts {
        let lines: Vec<Line> = views(report).map(|(colour, run)| over_heads(colour, run, name)).collect();
        if lines.iter().any(|line| !line.points.is_empty()) {
            let file = format!("genetic_{name}");
            figures.push(figure(&file, title, ["optimizer steps", unit], Content::Lines(lines)));
        }
    }
    for (_, run) in views(report) {
        let last = run.rows.iter().rev().find_map(|row| match row {
            Logged::Genetics { view, .. } => Some(view.modulation.clone()),
            _ => None,
        });
        let title = format!("{}: distance of γ from uniform after training", run.arm);
        let file = format!("genetic_modulation_by_head_{}", run.arm);
        figures.extend(last.map(|layers| figure(&file, &title, ["value head", "layer"], Content::Grid(layers))));
    }
    figures
}

/// Of each arm with genetic attention its first run, with the arm's colour.
fn views<'a>(report: &'a Report<'a>) -> impl Iterator<Item = (usize, &'a RunHistory)> {
    let first = |(colour, arm): (usize, &crate::compare::ArmResults)| {
        Some((colour, report.histories.iter().filter(has_view).find(|run| run.arm == arm.arm)?))
    };
    report.comparison.arms.iter().enumerate().filter_map(first)
}

fn over_heads(colour: usize, run: &RunHistory, part: &str) -> Line {
    let mut line = Line { label: run.arm.clone(), colour, ..Line::default() };
    for row in &run.rows {
        let Logged::Genetics { step, view } = row else { continue };
        let Some((_, layers)) = view.named().into_iter().find(|(name, _)| *name == part) else { continue };
        let heads: Vec<f64> = layers.iter().flatten().copied().collect();
        let (mean, low, high) = mean_and_range(&heads);
        line.points.push((*step as f64, mean));
        line.band.push((*step as f64, low, high));
    }
    line
}

/// A line per arm: the mean over seeds, and from the least to the largest seed as its band.
fn by_arm(report: &Report, value: impl Fn(&Logged) -> Option<(u64, f64)>) -> Vec<Line> {
    let of_arm = |(colour, arm): (usize, &crate::compare::ArmResults)| {
        let runs = report.histories.iter().filter(|run| run.arm == arm.arm);
        let mut by_step: BTreeMap<u64, Vec<f64>> = BTreeMap::new();
        for (step, value) in runs.flat_map(|run| run.rows.iter().filter_map(&value)) {
            by_step.entry(step).or_default().push(value);
        }
        let mut line = Line { label: arm.arm.clone(), colour, ..Line::default() };
        for (step, values) in by_step {
            let (mean, low, high) = mean_and_range(&values);
            line.points.push((step as f64, mean));
            if values.len() > 1 {
                line.band.push((step as f64, low, high));
            }
        }
        line
    };
    report.comparison.arms.iter().enumerate().map(of_arm).collect()
}

fn mean_and_range(values: &[f64]) -> (f64, f64, f64) {
    let (low, high) =
        values.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), &x| (low.min(x), high.max(x)));
    (values.iter().sum::<f64>() / values.len() as f64, low, high)
}

/// A density over the cosines that occur, at the middles of the bins.
fn density(distribution: &Distribution) -> Vec<(f64, f64)> {
    let width = 2.0 / HISTOGRAM_BINS as f64;
    let filled = |count: &u64| *count > 0;
    let first = distribution.histogram.iter().position(filled).unwrap_or(0);
    let last = distribution.histogram.iter().rposition(filled).unwrap_or(0);
    let middle = |bin: usize| -1.0 + width * (bin as f64 + 0.5);
    let height = |bin: usize| distribution.histogram[bin] as f64 / (distribution.count as f64 * width);
    let ends = [(middle(first) - width, 0.0), (middle(last) + width, 0.0)];
    let inner = (first..=last).map(|bin| (middle(bin), height(bin)));
    ends[..1].iter().copied().chain(inner).chain(ends[1..].iter().copied()).collect()
}

fn figure(name: &str, title: &str, [x, y]: [&str; 2], content: Content) -> Figure {
    Figure { name: name.into(), title: title.into(), x: x.into(), y: y.into(), content }
}

fn has_view(run: &&RunHistory) -> bool {
    run.rows.iter().any(|row| matches!(row, Logged::Genetics { .. }))
}
