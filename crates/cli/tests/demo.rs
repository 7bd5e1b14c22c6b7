//! The main claim: on the demo both attentions learn to retrieve, in minutes, without a network.

mod common;

use std::time::{Duration, Instant};

use common::{Place, read_json, succeed};

/// Set to hold the run to the time that it has on two quiet cores.
const TIMING: &str = "MENDEL_TEST_TIMING";

#[test]
fn on_the_demo_both_arms_learn_to_retrieve() {
    let place = Place::new();
    let out = place.argument("out");
    let begin = Instant::now();
    succeed(&["compare", "--preset", "demo", "--output-dir", &out]);
    let elapsed = begin.elapsed();
    for arm in ["standard", "genetic"] {
        let results = read_json(&place.path("out").join(format!("{arm}_attention_results.json")));
        let measured = |of: &str| results[of]["mrr@10"].as_f64().unwrap();
        assert!(measured("untrained") < 0.15, "{arm}, untrained: {}", measured("untrained"));
        assert!(measured("eval") >= 0.6, "{arm}: {}", measured("eval"));
    }
    eprintln!("the demo took {elapsed:.1?}");
    if std::env::var_os(TIMING).is_some_and(|value| value == "1") {
        assert!(elapsed < Duration::from_secs(240), "the demo took {elapsed:?}");
    }
}

#[test]
fn the_same_seed_gives_the_same_run_and_another_seed_another() {
    let place = Place::new();
    let run = |out: &str, seed: &str| {
        let out = place.argument(out);
        succeed(&["compare", "--preset", "demo", "--max-steps", "8", "--seed", seed, "--output-dir", &out]);
    };
    run("first", "42");
    run("second", "42");
    run("other", "43");
    for arm in ["standard", "genetic"] {
        common::assert_same_run(&place.path("first"), &place.path("second"), arm);
        let weights = |out: &str, seed: u64| {
            std::fs::read(place.path(out).join(format!("models/{arm}-seed{seed}/model.safetensors"))).unwrap()
        };
        assert!(weights("first", 42) != weights("other", 43));
    }
}
