//! `report.html`: one file that needs no network.

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::figure::{Figure, FigureError};
use super::table::Table;
use super::{Report, markdown, summary};
use crate::compare::{Difference, PRIMARY, Verdict};

const STYLE: &str = include_str!("report.css");

/// The whole page. All texts are escaped; the figures are the SVG that this program drew.
pub fn page(report: &Report, groups: &[(&str, Vec<Figure>)]) -> Result<String, FigureError> {
    let title = markdown::title(report);
    let mut drawn = Vec::with_capacity(groups.len());
    for (heading, figures) in groups {
        let svg: Result<Vec<String>, FigureError> = figures.iter().map(Figure::svg).collect();
        drawn.push((*heading, svg?));
    }
    let config = report.settings.to_toml().unwrap_or_default();
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { "mendel: " (title) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                header {
                    p.kicker { "mendel" }
                    h1 { (title) }
                    p.subject { (summary::subject(report)) }
                }
                main {
                    (verdicts(report))
                    section { h2 { "Quality" } (table(&summary::quality(report))) }
                    @for (heading, figures) in &drawn[..1] { (figure_group(heading, figures)) }
                    section {
                        details { summary { "All differences, with intervals and tests" } (table(&summary::differences(report))) }
                        p.note { (summary::method(report)) }
                    }
                    section { h2 { "Cost" } (table(&summary::costs(report))) }
                    @for (heading, figures) in &drawn[1..] { (figure_group(heading, figures)) }
                    (examples(report))
                    section {
                        h2 { "Machine" }
                        dl { @for (name, value) in summary::machine(report) { dt { (name) } dd { (value) } } }
                        details { summary { "Settings" } pre { (config) } }
                        h2 { "Again" }
                        pre { (summary::COMMANDS) }
                    }
                }
            }
        }
    };
    Ok(page.into_string())
}

fn verdicts(report: &Report) -> Markup {
    let comparison = report.comparison;
    html! {
        section.verdicts {
            @for (difference, conclusion) in comparison.differences.iter().zip(&comparison.conclusions) {
                div.verdict { (headline(difference)) p { (conclusion) } }
            }
        }
    }
}

fn headline(Difference { reference, arm, measures, .. }: &Difference) -> Markup {
    let verdict = measures[PRIMARY].test.as_ref().map(|test| test.verdict);
    html! {
        @match verdict {
            Some(Verdict::Better) => p.headline.better { (arm) " is better than " (reference) },
            Some(Verdict::Worse) => p.headline.worse { (arm) " is worse than " (reference) },
            _ => p.headline { "No difference between " (arm) " and " (reference) " is shown" },
        }
    }
}

fn figure_group(heading: &str, figures: &[String]) -> Markup {
    html! {
        section {
            h2 { (heading) }
            div.figures { @for svg in figures { figure { (PreEscaped(svg)) } } }
        }
    }
}

fn table(table: &Table) -> Markup {
    html! {
        div.scroll {
            table {
                thead { tr { @for cell in table.header() { th { (cell) } } } }
                tbody { @for row in table.rows() { tr { @for column in 0..table.header().len() { td { (row.get(column).map_or("", String::as_str)) } } } } }
            }
        }
    }
}

fn examples(report: &Report) -> Markup {
    html! {
        @for examples in report.comparison.measured.examples.iter().filter(|examples| !examples.queries.is_empty()) {
            section {
                h2 { "Queries that " (examples.arm) " and " (examples.reference) " answer most differently" }
                div.scroll {
                    table.texts {
                        thead { tr { th { "Query" } th { "Passage that answers it" } th { "1/rank, " (examples.reference) } th { "1/rank, " (examples.arm) } } }
                        tbody {
                            @for example in &examples.queries {
                                tr {
                                    td dir="auto" { (example.query) }
                                    td dir="auto" { div.passage { (example.passage) } }
                                    td { (format!("{:.2}", example.reference)) }
                                    td { (format!("{:.2}", example.arm)) }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}
