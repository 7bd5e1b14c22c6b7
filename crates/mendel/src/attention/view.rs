//! What the genetic part does with texts, head by head: a look at numbers that a forward pass has at hand.

use std::cell::RefCell;

use mendel_engine::{Sequences, Tensor};
use serde::{Deserialize, Serialize};

use super::Genetic;

/// How the genetic part of each layer and value head acts, averaged over texts: `[layer][head]`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct GeneticView {
    /// How far the gene fitness is from uniform: the root mean square of `d·γ − 1` over genes; 0 changes nothing.
    pub modulation: Vec<Vec<f64>>,
    /// The opportunity for selection (Crow 1958): the variance of `φ^β` over a text's tokens, over its mean squared; at
    /// 0 every token leaves as many descendants.
    pub selection: Vec<Vec<f64>>,
    /// The entropy of the ancestry over a text's tokens, averaged over genes, as a share of the largest, `ln T`: 1 if all
    /// tokens are ancestors alike, 0 if one is the ancestor of all. Absent at the fixed point, where it is 1.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub ancestry_entropy: Vec<Vec<f64>>,
}

impl GeneticView {
    /// Its parts by name, without those that are absent.
    pub fn named(&self) -> Vec<(&'static str, &Vec<Vec<f64>>)> {
        let all = [
            ("modulation", &self.modulation),
            ("selection", &self.selection),
            ("ancestry_entropy", &self.ancestry_entropy),
        ];
        all.into_iter().filter(|(_, layers)| !layers.is_empty()).collect()
    }
}

/// Collects a [`GeneticView`] during a forward pass.
#[derive(Debug, Default)]
pub struct Probe(RefCell<GeneticView>);

/// What a layer has at hand, of texts of at least two tokens.
pub(super) struct Seen<'a> {
    /// `V` `[N, v·d]`
    pub values: &'a Tensor,
    /// `γ` `[S, v·d]`, causal `[N, v·d]`
    pub fitness: &'a Tensor,
    /// `A` `[N, v·d]`
    pub ancestry: Option<&'a Tensor>,
    pub sequences: &'a Sequences,
    pub head_dim: usize,
    pub causal: bool,
}

impl Probe {
    /// What was collected, layer after layer.
    pub fn into_view(self) -> GeneticView {
        self.0.into_inner()
    }

    pub(super) fn layer(&self, seen: &Seen<'_>, genetic: &Genetic) {
        let view = &mut *self.0.borrow_mut();
        let heads = 0..seen.values.columns() / seen.head_dim;
        view.modulation
            .push(heads.clone().map(|head| seen.mean_over_texts(|text| seen.modulation(head, text))).collect());
        let beta = genetic.selection_pressure;
        let selection = |head| seen.mean_over_texts(|text| seen.selection(head, text, beta));
        view.selection.push(heads.clone().map(selection).collect());
        if let Some(ancestry) = seen.ancestry {
            let entropy = |head| seen.mean_over_texts(|text| seen.entropy(ancestry, head, text));
            view.ancestry_entropy.push(heads.map(entropy).collect());
        }
    }
}

impl Seen<'_> {
    /// Texts of one token have no selection and no entropy.
    fn mean_over_texts(&self, of: impl Fn(usize) -> f64) -> f64 {
        let texts: Vec<usize> =
            (0..self.sequences.len()).filter(|&text| self.sequences.range(text).len() > 1).collect();
        texts.iter().map(|&text| of(text)).sum::<f64>() / texts.len().max(1) as f64
    }

    fn genes<'t>(&self, tensor: &'t Tensor, row: usize, head: usize) -> &'t [f32] {
        let begin = row * tensor.columns() + head * self.head_dim;
        &tensor.data()[begin..begin + self.head_dim]
    }

    /// The fitness that a text's last token sees.
    fn fitness(&self, head: usize, text: usize) -> &[f32] {
        let row = if self.causal { self.sequences.range(text).end - 1 } else { text };
        self.genes(self.fitness, row, head)
    }

    fn modulation(&self, head: usize, text: usize) -> f64 {
        let d = self.head_dim as f64;
        let squares = self.fitness(head, text).iter().map(|&gamma| (d * f64::from(gamma) - 1.0).powi(2));
        (squares.sum::<f64>() / d).sqrt()
    }

    fn selection(&self, head: usize, text: usize, beta: f64) -> f64 {
        let fitness = self.fitness(head, text);
        let of_token = |token: usize| {
            let values = self.genes(self.values, token, head).iter().zip(fitness);
            values.map(|(&v, &gamma)| f64::from(gamma) / (1.0 + f64::from(-v).exp())).sum()
        };
        let phi: Vec<f64> = self.sequences.range(text).map(of_token).collect();
        // Of the largest, so that no exponent is too much.
        let most = phi.iter().copied().fold(f64::MIN_POSITIVE, f64::max);
        let phi: Vec<f64> = phi.iter().map(|phi| (phi / most).powf(beta)).collect();
        let mean = phi.iter().sum::<f64>() / phi.len() as f64;
        phi.iter().map(|phi| (phi / mean - 1.0).powi(2)).sum::<f64>() / phi.len() as f64
    }

    fn entropy(&self, ancestry: &Tensor, head: usize, text: usize) -> f64 {
        let tokens = self.sequences.range(text);
        let largest = (tokens.len() as f64).ln();
        let information = |share: f32| if share > 0.0 { -f64::from(share) * f64::from(share).ln() } else { 0.0 };
        let sum: f64 =
            tokens.flat_map(|token| self.genes(ancestry, token, head)).map(|&share| information(share)).sum();
        sum / self.head_dim as f64 / largest
    }
}
