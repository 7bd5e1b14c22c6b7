//! What a user may have meant.

/// The known name that is the fewest edits away, where that is at most one of every three letters: what is further away
/// would mislead.
pub fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let most = (name.chars().count() / 3).max(1);
    let distances = known.into_iter().map(|known| (strsim::damerau_levenshtein(name, known), known));
    distances.filter(|(distance, _)| *distance <= most).min_by_key(|(distance, _)| *distance).map(|(_, known)| known)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_near_is_suggested() {
        let known = ["dataset", "learning-rate", "lr-schedule", "batch-size", "seeds", "demo"];
        for (name, expected) in [
            ("batch_size", Some("batch-size")),
            ("lerning-rates", Some("learning-rate")),
            ("dmeo", Some("demo")),
            ("lr", None),
            ("steps", None),
            ("presett", None),
        ] {
            assert_eq!(nearest(name, known), expected, "{name}");
        }
    }
}
