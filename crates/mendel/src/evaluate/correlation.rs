//! Correlations of two rows of numbers.

/// Pearson's: the covariance over both deviations. Not a number where one side is constant, or there are not two pairs.
pub fn pearson(x: &[f64], y: &[f64]) -> f64 {
    let count = x.len() as f64;
    let (mean_x, mean_y) = (x.iter().sum::<f64>() / count, y.iter().sum::<f64>() / count);
    let (mut both, mut of_x, mut of_y) = (0.0, 0.0, 0.0);
    for (x, y) in x.iter().zip(y) {
        let (x, y) = (x - mean_x, y - mean_y);
        both += x * y;
        of_x += x * x;
        of_y += y * y;
    }
    (both / (of_x.sqrt() * of_y.sqrt())).clamp(-1.0, 1.0)
}

/// Spearman's: Pearson's of the ranks, equal numbers sharing the mean of theirs.
pub fn spearman(x: &[f64], y: &[f64]) -> f64 {
    pearson(&ranks(x), &ranks(y))
}

fn ranks(numbers: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..numbers.len()).collect();
    order.sort_by(|&a, &b| numbers[a].total_cmp(&numbers[b]));
    let mut ranks = vec![0.0; numbers.len()];
    let mut first = 0;
    for equal in order.chunk_by(|&a, &b| numbers[a] == numbers[b]) {
        let rank = (2 * first + equal.len() + 1) as f64 / 2.0;
        equal.iter().for_each(|&place| ranks[place] = rank);
        first += equal.len();
    }
    ranks
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Deserialize)]
    struct Case {
        x: Vec<f64>,
        y: Vec<f64>,
        pearson: f64,
        spearman: f64,
    }

    #[test]
    fn correlations_are_those_of_scipy() {
        let cases: Vec<Case> = serde_json::from_str(include_str!("../../tests/fixtures/correlations.json")).unwrap();
        assert!(cases.len() > 20);
        for (number, case) in cases.iter().enumerate() {
            let (found, expected) = (pearson(&case.x, &case.y), case.pearson);
            assert!((found - expected).abs() < 1e-9, "case {number}: Pearson {found}, scipy {expected}");
            let (found, expected) = (spearman(&case.x, &case.y), case.spearman);
            assert!((found - expected).abs() < 1e-12, "case {number}: Spearman {found}, scipy {expected}");
        }
    }

    #[test]
    fn equal_numbers_share_their_rank() {
        assert_eq!(ranks(&[3.0, 1.0, 3.0, 2.0, 3.0]), [4.0, 1.0, 4.0, 2.0, 4.0]);
    }

    #[test]
    fn a_constant_side_has_no_correlation() {
        assert!(pearson(&[1.0, 1.0], &[0.0, 1.0]).is_nan() && spearman(&[], &[]).is_nan());
    }
}
