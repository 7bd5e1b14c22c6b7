//! Dropout alone, which follows the embeddings; elsewhere it is part of what comes before or after it.

use super::context::{Context, Grid, arguments};
use super::elementwise::as_kind;
use super::programs::Program::Dropout as Kernels;
use super::{DropoutWords, owners_begins_and_ids, suffix};
use crate::random::Site;
use crate::sequences::Sequences;
use crate::tensor::Tensor;

const THREADS: usize = 128;

pub fn dropout(context: &Context, x: &Tensor, sequences: &Sequences, probability: f32, site: Site, out: &mut Tensor) {
    let kind = out.slice().kind();
    let x = as_kind(context, x, kind);
    let draws = (owners_begins_and_ids(sequences), DropoutWords::new(Some((probability, site))));
    let (from, to) = (x.slice().address(), out.slice_mut().address());
    context.launch(
        Kernels,
        &format!("dropout_{}", suffix(kind)),
        Grid::line(x.rows(), THREADS),
        arguments![from, draws, to, x.columns() as i32],
    );
}
