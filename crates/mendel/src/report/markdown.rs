//! `report.md`.

use std::fmt::Write;

use super::figure::Figure;
use super::table::{Table, escaped};
use super::{CURVES, Report, summary};

/// The whole text. Figures are those in the folder of the curves.
pub fn page(report: &Report, groups: &[(&str, Vec<Figure>)]) -> String {
    let mut text = format!("# {}\n\n{}\n\n", title(report), escaped(&summary::subject(report)));
    report.comparison.conclusions.iter().for_each(|line| text += &format!("> {}\n>\n", escaped(line)));
    let tables = [
        ("Quality", summary::quality(report)),
        ("Differences", summary::differences(report)),
        ("Cost", summary::costs(report)),
    ];
    for (heading, content) in tables {
        text += &format!("\n## {heading}\n\n{}", content.markdown());
    }
    text += &format!("\n{}\n", summary::method(report));
    for (heading, figures) in groups {
        text += &format!("\n## {heading}, drawn\n\n");
        for figure in figures {
            text += &format!("![{}]({CURVES}/{}.svg)\n", escaped(&figure.title), figure.name);
        }
    }
    for examples in &report.comparison.measured.examples {
        let (arm, reference) = (escaped(&examples.arm), escaped(&examples.reference));
        text += &format!("\n## Queries that {arm} and {reference} answer most differently\n\n");
        let mut rows = Table::new(["Query", "Passage", &examples.reference, &examples.arm]);
        for example in &examples.queries {
            let [before, after] = [example.reference, example.arm].map(|rank| format!("{rank:.2}"));
            rows.row([example.query.clone(), example.passage.clone(), before, after]);
        }
        text += &rows.markdown();
    }
    text += "\n## Machine\n\n";
    summary::machine(report).iter().for_each(|(name, value)| text += &format!("- {name}: {}\n", escaped(value)));
    let _ = write!(text, "\n## Again\n\n```sh\n{}\n```\n", summary::COMMANDS);
    text
}

/// The heading of a report.
pub fn title(report: &Report) -> String {
    let arms: Vec<&str> = report.comparison.arms.iter().map(|arm| arm.arm.as_str()).collect();
    match arms.split_last() {
        Some((last, others)) if !others.is_empty() => format!("{} and {last}", others.join(", ")),
        _ => arms.join(""),
    }
}
