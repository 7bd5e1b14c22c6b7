//! The tables of a report, the same in HTML and in Markdown.

use super::Report;
use super::table::{Table, difference, duration, gigabytes, measure, p_value, rate};
use crate::compare::{ArmResults, MEASURES};
use crate::train::RunNumbers;

/// Quality: a row per arm, untrained and trained; means over seeds, and deviations where there are several.
pub fn quality(report: &Report) -> Table {
    let titles = MEASURES.iter().map(|(title, _)| *title);
    let mut table = Table::new(["Arm"].into_iter().chain(titles).chain(["Training loss"]));
    for arm in &report.comparison.arms {
        let untrained = MEASURES.map(|(_, name)| over_seeds(arm, |numbers| numbers.untrained.by_name()[name]));
        table.row([format!("{}, untrained", arm.arm)].into_iter().chain(untrained));
    }
    for arm in &report.comparison.arms {
        let trained = MEASURES.map(|(_, name)| over_seeds(arm, |numbers| numbers.eval.by_name()[name]));
        let loss = over_seeds(arm, |numbers| numbers.final_loss);
        table.row([arm.arm.clone()].into_iter().chain(trained).chain([loss]));
    }
    table
}

fn over_seeds(arm: &ArmResults, number: impl Fn(&RunNumbers) -> f64 + Copy) -> String {
    match arm.deviation(number) {
        Some(deviation) => format!("{} ± {deviation:.4}", measure(arm.mean(number))),
        None => measure(arm.mean(number)),
    }
}

/// Differences: a row per pair of arms and measure.
pub fn differences(report: &Report) -> Table {
    let mut table =
        Table::new(["Arms", "Measure", "Difference", "95% interval", "p", "p over queries", "p (Holm)", "Verdict"]);
    for pair in &report.comparison.differences {
        for (title, name) in MEASURES {
            let compared = &pair.measures[name];
            let Some(test) = &compared.test else { continue };
            let p = test.seeds.as_ref().map_or(test.queries.p, |seeds| seeds.p);
            table.row([
                format!("{} − {}", pair.arm, pair.reference),
                title.to_owned(),
                difference(compared.difference),
                format!("{} to {}", difference(test.ci95.low), difference(test.ci95.high)),
                p_value(p),
                p_value(test.queries.p),
                p_value(test.p_holm),
                test.verdict.to_string(),
            ]);
        }
    }
    table
}

/// Costs: a row per arm; ratios to the first arm.
pub fn costs(report: &Report) -> Table {
    let comparison = report.comparison;
    let mut table = Table::new(["Arm", "Step", "Step / first arm's", "Training", "Memory", "Pairs/s", "Utilisation"]);
    let steps = &comparison.measured.step_costs;
    let first = steps.get(&comparison.reference);
    for arm in &comparison.arms {
        let step = steps.get(&arm.arm);
        let ratio = step.zip(first).map(|(own, first)| format!("{:.3}", own.ratio_to(first)));
        table.row([
            arm.arm.clone(),
            step.map_or(String::new(), |step| duration(step.median_seconds)),
            ratio.unwrap_or_default(),
            duration(arm.mean(|numbers| numbers.resources.total_time)),
            gigabytes(arm.mean(|numbers| numbers.resources.peak_memory_gb)),
            rate(arm.mean(|numbers| numbers.resources.throughput.pairs_per_second)),
            format!("{:.0}%", 100.0 * arm.mean(|numbers| numbers.resources.throughput.model_flop_utilisation)),
        ]);
    }
    table
}

/// What was compared, in a line.
pub fn subject(report: &Report) -> String {
    let (settings, comparison) = (report.settings, report.comparison);
    let seeds: Vec<String> = comparison.seeds.iter().map(u64::to_string).collect();
    format!(
        "{} on {}, {} steps of {} pairs, seed{} {}, {} queries",
        settings.model,
        settings.dataset,
        comparison.arms[0].seeds[0].numbers.steps,
        settings.batch_size,
        if seeds.len() > 1 { "s" } else { "" },
        seeds.join(", "),
        comparison.queries
    )
}

/// How the numbers came about.
pub fn method(report: &Report) -> &'static str {
    if report.comparison.seeds.len() > 1 {
        "Arms of a seed start from the same weights, as far as they share them, and see the same batches with the same dropout. Intervals and p take queries and seeds both as samples (crossed random effects, Satterthwaite's degrees of freedom); \"p over queries\" is a randomisation test with these seeds as they are. Intervals are not corrected for the number of tests; p (Holm) and the verdicts are, over all measures and pairs of arms. ± is the deviation over seeds. Steps were timed in turn. Two or three seeds tell little of how much seeds vary: without a difference, p is then below 0.05 in up to 11% or 8%, from five seeds on in at most about 6%."
    } else {
        "Arms start from the same weights, as far as they share them, and see the same batches with the same dropout. Intervals are by bootstrap and p by randomisation, both over queries: what another seed would give they do not say. Holm's correction is over all measures and pairs of arms. Steps were timed in turn."
    }
}

/// The machine, as labels and values.
pub fn machine(report: &Report) -> Vec<(&'static str, String)> {
    let machine = &report.comparison.measured.machine;
    vec![
        ("mendel", machine.version.clone()),
        ("Processor", machine.processor.clone()),
        ("Threads", machine.threads.to_string()),
        ("Matrix unit", machine.matrix_unit.clone()),
        ("System", machine.system.clone()),
    ]
}

/// The commands that repeat the comparison and this report.
pub const COMMANDS: &str = "mendel compare --config config.toml --output-dir again\nmendel report .";
