//! Arms of one's own, sweeps, and the report in a browser.

mod common;

use std::fs;
use std::path::Path;
use std::process::Command;

use common::{Place, fail, lines, names, read_json, succeed};
use serde_json::json;

/// Texts that a careless report would take for something else.
const HOSTILE: [&str; 5] = [
    "<script>document.title = 'broken'</script> & \"quoted\" 'too'",
    "مرحبا بالعالم",
    "emoji 🧬 and </td></table><h1>out</h1>",
    "| a | table | of *markdown* [link](http://example.org)",
    "<img src=x onerror=alert(1)>",
];

/// A comparison of two seeds on pairs with hostile texts, in `out`.
fn hostile(place: &Place) {
    let pair = |index: usize| {
        let text = HOSTILE[index % HOSTILE.len()];
        json!({"query": format!("{text} question {index}"), "positive": format!("{text} answer {index}")})
    };
    let train = place.file("train.jsonl", lines((0..80).map(pair)));
    let dev = place.file("dev.jsonl", lines((80..120).map(pair)));
    let (out, query) = (place.argument("out"), "<script>prefix</script> ");
    let data = ["--model", "demo-tiny", "--dataset", &train, "--eval-dataset", &dev, "--query-prefix", query];
    let run = [
        "--fitness-scale",
        "unit-sum",
        "--max-steps",
        "6",
        "--batch-size",
        "16",
        "--learning-rate",
        "1e-3",
        "--warmup-steps",
        "1",
    ];
    succeed(&[["compare", "--seeds", "1,2", "--output-dir", &out].as_slice(), &data, &run].concat());
}

#[test]
fn texts_of_a_dataset_are_text_in_the_report() {
    let place = Place::new();
    hostile(&place);
    let html = fs::read_to_string(place.path("out/report.html")).unwrap();
    for dangerous in ["<script", "<img", "<h1>out", "http://example.org\"", "src=\"", "href="] {
        assert!(!html.contains(dangerous), "{dangerous}");
    }
    assert!(html.contains("&lt;script&gt;prefix&lt;/script&gt;"));
    let markdown = fs::read_to_string(place.path("out/report.md")).unwrap();
    assert!(!markdown.contains("<script") && !markdown.contains("<img") && !markdown.contains("[link]("), "{markdown}");
    let examples = read_json(&place.path("out/comparison.json"))["examples"].clone();
    assert!(examples[0]["queries"].as_array().is_some_and(|queries| !queries.is_empty()), "{examples}");
}

#[test]
fn the_report_is_whole_in_a_browser_wide_and_narrow() {
    let Some(browser) = browser() else {
        return eprintln!("skipped: there is no chromium here (apt-get install chromium)");
    };
    let place = Place::new();
    hostile(&place);
    let html = fs::read_to_string(place.path("out/report.html")).unwrap();
    // The page with a look at itself: its title, whether it is wider than the window, and errors.
    let probe = "<script>const w = document.documentElement; document.body.insertAdjacentHTML('beforeend', \
                 `<output>title ${document.title}; wide ${w.scrollWidth > w.clientWidth}; figures ${document.querySelectorAll('figure svg').length}; \
                 injected ${document.querySelectorAll('main script, main img, main h1').length}</output>`)</script></body>";
    let path = place.file("probe.html", html.replacen("</body>", probe, 1));
    for width in [1280, 500] {
        let output = Command::new(&browser)
            .args(["--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--dump-dom"])
            .args([format!("--window-size={width},900"), format!("file://{path}")])
            .output()
            .unwrap();
        let (page, log) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        let seen = page.rsplit("<output>").next().and_then(|rest| rest.split("</output>").next()).unwrap_or_default();
        assert!(seen.starts_with("title mendel: standard and genetic; wide false; figures "), "{width}: {seen}");
        assert!(seen.ends_with("injected 0") && !seen.contains("figures 0"), "{width}: {seen}");
        assert!(!log.contains("CONSOLE"), "{width}: {log}");
    }
}

fn browser() -> Option<String> {
    let known = ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"];
    known.into_iter().find(|path| Path::new(path).exists()).map(str::to_owned)
}

#[test]
fn the_report_made_again_is_the_same() {
    let place = Place::new();
    hostile(&place);
    let read = |name: &str| fs::read_to_string(place.path("out").join(name)).unwrap();
    let files = ["report.html", "report.md", "comparison.json", "training_curves/mrr_at_10.svg"];
    let before = files.map(read);
    fs::remove_file(place.path("out/report.html")).unwrap();
    succeed(&["report", &place.argument("out")]);
    for (name, before) in files.iter().zip(before) {
        // The settings of the report name the folder as it was given.
        assert_eq!(read(name), before, "{name}");
    }
    fail(1, &["report", &place.argument("nowhere")], &["there is no folder", "nowhere"]);
    let record = place.path("out/runs/genetic-seed2.json");
    let whole = read_json(&record);
    let mut lacking = whole.clone();
    lacking["per_query"].as_object_mut().unwrap().remove("mrr@10");
    let mut other = whole.clone();
    other["data"]["evaluation"] = "another".into();
    for (damaged, told) in [(lacking, "lacks a measure"), (other, "on the data of the others")] {
        fs::write(&record, damaged.to_string()).unwrap();
        fail(1, &["report", &place.argument("out")], &["genetic-seed2", told]);
    }
}

#[test]
fn a_training_of_one_arm_has_nothing_to_report() {
    let place = Place::new();
    let (dataset, out) = (place.pairs(), place.argument("out"));
    succeed(&["train", "--model", "demo-tiny", "--dataset", &dataset, "--max-steps", "2", "--output-dir", &out]);
    fail(1, &["report", &out], &["holds one arm, standard,", "standard_attention_results.json"]);
}

#[test]
fn an_arm_of_ones_own_is_trained_with_what_it_changes() {
    let place = Place::new();
    let (dataset, out) = (place.pairs(), place.argument("out"));
    let config = place.file(
        "arms.toml",
        "[[arms]]\nname = \"standard\"\n[[arms]]\nname = \"few\"\ngenetic = true\npopulation-size = 4\n",
    );
    let common = ["--model", "demo-tiny", "--dataset", &dataset, "--max-steps", "2", "--output-dir"];
    let printed = succeed(&[["compare", "--config", &config].as_slice(), &common, &[&out]].concat());
    assert!(printed.contains("VERDICT mrr@10 few vs standard: "), "{printed}");
    let results = read_json(&place.path("out/few_attention_results.json"));
    assert_eq!(results["model"]["genetic"]["population-size"], 4, "{}", results["model"]);
    // A flag chooses among the arms of the file by name.
    let alone = place.argument("alone");
    succeed(&[["train", "--config", &config, "--attention", "few"].as_slice(), &common, &[&alone]].concat());
    fail(2, &["train", "--config", &config, "--attention", "many"], &["'many'"]);
    let plain = place.file("plain.toml", "[[arms]]\nname = \"few\"\npopulation-size = 4\n");
    fail(2, &["train", "--config", &plain], &["few", "genetic = true"]);
    let wrong = place.file("wrong.toml", "[[arms]]\nname = \"few\"\nlearning-rate = 1.0\n");
    fail(2, &["compare", "--config", &wrong], &["arms", "learning-rate", "population-size"]);
}

#[test]
fn a_sweep_has_a_row_and_a_folder_for_each_point_and_goes_on_where_it_ended() {
    let place = Place::new();
    let (dataset, out) = (place.pairs(), place.argument("out"));
    let settings = format!("model = \"demo-tiny\"\ndataset = '{dataset}'\nmax-steps = 2\n");
    let config = place.file("sweep.toml", settings + "[grid]\npopulation-size = [2, 8]\nmutation-rate = [0.0, 0.5]\n");
    let line = ["sweep", "--config", &config, "--output-dir", &out];
    let printed = succeed(&line);
    assert_eq!(printed.lines().count(), 2 + 4, "{printed}");
    let points =
        ["point-001", "point-002", "point-003", "point-004", "sweep.json", "sweep.md", "sweep.png", "sweep.svg"];
    assert_eq!(names(&place.path("out")), points);
    let results = fs::read(place.path("out/sweep.json")).unwrap();
    fs::remove_dir_all(place.path("out/point-003")).unwrap();
    succeed(&[line.as_slice(), &["--resume"]].concat());
    let (before, after): (serde_json::Value, _) =
        (serde_json::from_slice(&results).unwrap(), read_json(&place.path("out/sweep.json")));
    for (before, after) in before.as_array().unwrap().iter().zip(after.as_array().unwrap()) {
        assert_eq!(before["mrr@10"], after["mrr@10"]);
    }
    // The three that were finished were taken as they were: their times too.
    assert_eq!(before[0], after[0]);
    let other = place.file("other.toml", fs::read_to_string(&config).unwrap().replace("[0.0, 0.5]", "[0.0, 0.25]"));
    let line = ["sweep", "--config", &other, "--output-dir", &out];
    fail(1, &line, &["point-003", "mutation-rate was 0.5 and is 0.25", "--overwrite"]);
    succeed(&[line.as_slice(), &["--overwrite"]].concat());
    let heads = place.file("heads.toml", "preset = \"demo\"\n[grid]\nn-heads = [4, 3]\n");
    let elsewhere = place.argument("elsewhere");
    let line = ["sweep", "--config", &heads, "--output-dir", &elsewhere];
    fail(2, &line, &["point 2 of the sweep (n-heads=3)", "n-heads = 3", "128"]);
    assert!(!place.path("elsewhere").exists());
    let misspelt = place.file("misspelt.toml", "preset = \"demo\"\n[grid]\npopulaton-size = [1, 2]\n");
    fail(2, &["sweep", "--config", &misspelt], &["populaton-size", "population-size"]);
    let folders = place.file("folders.toml", "preset = \"demo\"\n[grid]\noutput-dir = [\"a\", \"b\"]\n");
    fail(2, &["sweep", "--config", &folders], &["output-dir"]);
    let nothing = place.file("nothing.toml", "preset = \"demo\"\n");
    fail(2, &["sweep", "--config", &nothing], &["[grid]"]);
}
