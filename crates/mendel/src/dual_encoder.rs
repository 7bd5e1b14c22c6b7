//! The dual encoder: one BERT for queries and passages, pooled and brought to unit length.

use std::ops::Range;

use mendel_engine::ops::pool;
use mendel_engine::{Passes, Tape, Var};

use crate::bert::BertModel;
use crate::layers::{Batch, Mode};
use crate::settings::Pooling;

/// An encoder of texts into unit vectors, whose inner products are cosines.
#[derive(Clone, Debug)]
pub struct DualEncoder {
    /// The encoder of tokens.
    pub bert: BertModel,
    /// How token vectors become one.
    pub pooling: Pooling,
}

/// The vectors of many texts, in the texts' order.
#[derive(Clone, Debug, Default)]
pub struct Embeddings {
    /// `[texts, width]`, row-major, each row of unit length.
    pub vectors: Vec<f32>,
    /// Each vector's Euclidean norm before it was brought to 1.
    pub norms: Vec<f32>,
    /// Components of a vector.
    pub width: usize,
}

impl DualEncoder {
    /// The unit vectors of a batch's texts, `[S, H]`.
    pub fn forward(&self, tape: &Tape, batch: &Batch, mode: Mode) -> mendel_engine::Result<Var> {
        self.pooled(tape, batch, mode)?.l2_normalize()
    }

    fn pooled(&self, tape: &Tape, batch: &Batch, mode: Mode) -> mendel_engine::Result<Var> {
        let pooling = match self.pooling {
            Pooling::Mean => pool::Pooling::Mean,
            Pooling::Cls => pool::Pooling::Cls,
            Pooling::Max => pool::Pooling::Max,
        };
        self.bert.forward(tape, batch, mode)?.pool(&batch.sequences, pooling)
    }

    /// The vectors of tokenised texts. `advance` is told after each batch how many texts are done.
    pub fn embed(&self, texts: &[Vec<u32>], advance: impl FnMut(usize)) -> mendel_engine::Result<Embeddings> {
        self.embed_by(self.bert.device().passes(texts.iter().map(Vec::len).sum()), texts, advance)
    }

    fn embed_by(
        &self,
        passes: Passes,
        texts: &[Vec<u32>],
        mut advance: impl FnMut(usize),
    ) -> mendel_engine::Result<Embeddings> {
        let width = self.bert.config().hidden_size;
        let mut embeddings =
            Embeddings { vectors: vec![0.0; texts.len() * width], norms: vec![0.0; texts.len()], width };
        // Texts of like length go together, the longest first: the arena then fits every later batch.
        let mut order: Vec<usize> = (0..texts.len()).collect();
        order.sort_by_key(|&text| std::cmp::Reverse(texts[text].len()));
        let groups: Vec<&[usize]> = groups(&order, texts, passes.rows).into_iter().map(|group| &order[group]).collect();
        let pass = |number: usize| {
            let tokens: Vec<&[u32]> = groups[number].iter().map(|&text| texts[text].as_slice()).collect();
            self.vectors(&tokens)
        };
        let mut done = 0;
        passes.run(groups.len(), pass, |number, vectors: mendel_engine::Result<[Vec<f32>; 2]>| {
            let [pooled, unit] = vectors?;
            let rows = pooled.chunks_exact(width).zip(unit.chunks_exact(width));
            for (&text, (pooled, unit)) in groups[number].iter().zip(rows) {
                embeddings.norms[text] = pooled.iter().map(|x| x * x).sum::<f32>().sqrt();
                embeddings.vectors[text * width..(text + 1) * width].copy_from_slice(unit);
            }
            done += groups[number].len();
            advance(done);
            Ok::<(), mendel_engine::Error>(())
        })?;
        self.bert.device().check()?;
        Ok(embeddings)
    }

    /// The pooled vectors of one batch, and the same brought to unit length.
    fn vectors(&self, texts: &[&[u32]]) -> mendel_engine::Result<[Vec<f32>; 2]> {
        let batch = Batch::pack(self.bert.device(), texts, &vec![0; texts.len()])?;
        let pooled = self.pooled(&Tape::inference(), &batch, Mode::Evaluation)?;
        let unit = pooled.l2_normalize()?;
        Ok([pooled, unit].map(|vectors| vectors.value().to_vec()))
    }
}

/// Runs of `order` whose texts have at most `most` tokens together, or are one text.
fn groups(order: &[usize], texts: &[Vec<u32>], most: usize) -> Vec<Range<usize>> {
    let mut groups = Vec::new();
    let (mut begin, mut tokens) = (0, 0);
    for (place, &text) in order.iter().enumerate() {
        if place > begin && tokens + texts[text].len() > most {
            groups.push(begin..place);
            (begin, tokens) = (place, 0);
        }
        tokens += texts[text].len();
    }
    if begin < order.len() {
        groups.push(begin..order.len());
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bert::BertConfig;

    #[test]
    fn texts_keep_their_order_and_their_vectors_whatever_stands_beside_them() {
        let bert = BertModel::builder().config(BertConfig::demo_tiny(50)).build().unwrap();
        let encoder = DualEncoder { bert, pooling: Pooling::Mean };
        let texts: Vec<Vec<u32>> = (1..40_u32).map(|i| (0..1 + i * 7 % 30).map(|t| (t * i) % 50).collect()).collect();
        let together = encoder.embed(&texts, |_| ()).unwrap();
        for (row, text) in texts.iter().enumerate() {
            let alone = encoder.embed(std::slice::from_ref(text), |_| ()).unwrap();
            for (a, b) in alone.vectors.iter().zip(&together.vectors[row * 128..]) {
                assert!((a - b).abs() < 1e-5, "text {row}: {a} {b}");
            }
        }
    }

    #[test]
    fn batches_of_threads_have_the_bits_of_one_after_the_other() {
        let bert = BertModel::builder().config(BertConfig::demo_tiny(50)).build().unwrap();
        let encoder = DualEncoder { bert, pooling: Pooling::Mean };
        let texts: Vec<Vec<u32>> = (1..200_u32).map(|i| (0..1 + i * 7 % 30).map(|t| (t * i) % 50).collect()).collect();
        let embed = |at_once| {
            let mut told = Vec::new();
            let embeddings = encoder.embed_by(Passes { rows: 64, at_once }, &texts, |done| told.push(done)).unwrap();
            assert!(told.is_sorted_by(|a, b| a < b) && told.last() == Some(&texts.len()), "{told:?}");
            (embeddings.vectors, embeddings.norms)
        };
        assert_eq!(embed(3), embed(1));
    }

    #[test]
    fn groups_hold_every_text_once_and_few_tokens() {
        let texts: Vec<Vec<u32>> = [9000, 8000, 192, 1, 5000, 5000].map(|len| vec![0; len]).into();
        assert_eq!(groups(&[0, 1, 2, 3, 4, 5], &texts, 8192), [0..1, 1..3, 3..5, 5..6]);
        assert!(groups(&[], &[], 8192).is_empty());
    }
}
