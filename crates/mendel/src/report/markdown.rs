//! `report.md`.

use std::fmt::Write;

use super::figure::Figure;
use super::table::Table;
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
        text += &format!("\n## {heading}\n\n{}", table(&content));
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
        text += &table(&rows);
    }
    text += "\n## Machine\n\n";
    summary::machine(report).iter().for_each(|(name, value)| text += &format!("- {name}: {}\n", escaped(value)));
    let _ = write!(text, "\n## Again\n\n```sh\n{}\n```\n", summary::COMMANDS);
    text
}

/// The heading of a report.
pub fn title(report: &Report) -> String {
    let arms: Vec<&str> = report.comparison.arms.iter().map(|arm| arm.arm.as_str()).collect();
    arms.join(" and ")
}

fn table(table: &Table) -> String {
    let line =
        |cells: &[String]| format!("| {} |\n", cells.iter().map(|cell| escaped(cell)).collect::<Vec<_>>().join(" | "));
    let rule = format!("|{}\n", " --- |".repeat(table.header().len()));
    let columns = table.header().len();
    let full =
        |row: &Vec<String>| line(&[row.as_slice(), &vec![String::new(); columns - row.len().min(columns)]].concat());
    line(table.header()) + &rule + &table.rows().iter().map(full).collect::<String>()
}

/// A text that is shown as it is: nothing in it is HTML, a link, a table or emphasis.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '<' => escaped += "&lt;",
            '>' => escaped += "&gt;",
            '&' => escaped += "&amp;",
            '\\' | '`' | '*' | '_' | '[' | ']' | '|' | '!' | '#' | '~' => escaped.extend(['\\', character]),
            control if control.is_control() => escaped.push(' '),
            other => escaped.push(other),
        }
    }
    escaped
}
