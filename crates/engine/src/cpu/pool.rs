//! One vector per sequence.

use rayon::prelude::*;

use crate::ops::pool::Pooling;
use crate::sequences::Sequences;
use crate::tensor::{Ids, Tensor};

pub fn forward(x: &Tensor, sequences: &Sequences, pooling: Pooling, out: &mut Tensor, argmax: &mut Ids) {
    let columns = x.columns();
    let x = x.data();
    let rows = out.data_mut().par_chunks_mut(columns).zip(argmax.data_mut().par_chunks_mut(columns));
    rows.enumerate().for_each(|(s, (out, argmax))| {
        let tokens = sequences.range(s);
        out.copy_from_slice(&x[tokens.start * columns..][..columns]);
        match pooling {
            Pooling::Cls => {}
            Pooling::Mean => {
                for token in tokens.clone().skip(1) {
                    for (sum, &x) in out.iter_mut().zip(&x[token * columns..]) {
                        *sum += x;
                    }
                }
                out.iter_mut().for_each(|sum| *sum /= tokens.len() as f32);
            }
            Pooling::Max => {
                argmax.fill(tokens.start as u32);
                for token in tokens.skip(1) {
                    for ((max, argmax), &x) in out.iter_mut().zip(argmax.iter_mut()).zip(&x[token * columns..]) {
                        if x > *max {
                            (*max, *argmax) = (x, token as u32);
                        }
                    }
                }
            }
        }
    });
}

pub fn backward(dout: &Tensor, sequences: &Sequences, pooling: Pooling, argmax: &Ids, dx: &mut Tensor) {
    let columns = dout.columns();
    let bounds = sequences.cu_seqlens().data();
    dx.data_mut().par_chunks_mut(columns).enumerate().for_each(|(token, dx)| {
        let s = bounds.partition_point(|&begin| begin as usize <= token) - 1;
        let tokens = sequences.range(s);
        let dout = &dout.data()[s * columns..][..columns];
        match pooling {
            Pooling::Cls if token == tokens.start => dx.copy_from_slice(dout),
            Pooling::Cls => dx.fill(0.0),
            Pooling::Mean => {
                for (dx, &dout) in dx.iter_mut().zip(dout) {
                    *dx = dout / tokens.len() as f32;
                }
            }
            Pooling::Max => {
                let argmax = &argmax.data()[s * columns..][..columns];
                for ((dx, &dout), &argmax) in dx.iter_mut().zip(dout).zip(argmax) {
                    *dx = if argmax as usize == token { dout } else { 0.0 };
                }
            }
        }
    });
}
