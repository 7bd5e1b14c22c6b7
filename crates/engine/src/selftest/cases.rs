//! Every operation, in the shapes that its kernels tell apart.

use super::{Activation, Case, Parameter, Positive, Role, as_activation};
use crate::error::Result;
use crate::ops::attention::{Attention, AttentionDropout, Genetic};
use crate::ops::evolve::Ancestry;
use crate::ops::gene_fitness::GeneFitness;
use crate::ops::info_nce::InfoNce;
use crate::ops::modulate::Modulate;
use crate::ops::pool::Pooling;
use crate::ops::residual_norm::{End, Norm, ResidualDropout};
use crate::random::{Purpose, Site};
use crate::sequences::Sequences;
use crate::tape::Var;
use crate::tensor::{Ids, Tensor};

/// Sequences of one token, of a whole tile, and of more, and more than four of those that share one: 316 tokens.
const LENGTHS: [usize; 9] = [1, 7, 64, 65, 130, 21, 16, 3, 9];
const TOKENS: usize = 316;
const EPSILON: f32 = 1e-6;

fn case(
    name: &str,
    inputs: &[(Role, &[usize])],
    operation: impl Fn(&Sequences, &[Var]) -> Result<Var> + 'static,
) -> Case {
    let inputs = inputs.iter().map(|(role, shape)| (*role, shape.to_vec())).collect();
    Case { name: name.into(), lengths: LENGTHS.to_vec(), inputs, operation: Box::new(operation) }
}

fn site(purpose: Purpose) -> Site {
    Site { seed: 0x1_0000_0007, step: 3, layer: 2, purpose }
}

/// Every case.
pub fn all() -> Vec<Case> {
    [basic(), products(), norms(), attentions(), genetics(), ends()].into_iter().flatten().collect()
}

fn basic() -> Vec<Case> {
    let x: (Role, &[usize]) = (Activation, &[TOKENS, 40]);
    let mut cases = vec![
        case("scale, sigmoid", &[x], |_, v| v[0].scale(-1.5)?.sigmoid()),
        case("gelu", &[x], |_, v| v[0].gelu()),
        case("softmax", &[x], |_, v| v[0].softmax()),
        case("sum of rows", &[x], |_, v| v[0].mul(&v[0])?.sum_rows()),
        case("sum of columns", &[x], |_, v| v[0].mul(&v[0])?.sum_columns()),
        case("sum", &[x], |_, v| v[0].mul(&v[0])?.sum()),
        case("reshape, rows", &[x], |_, v| v[0].reshape(&[40, TOKENS])?.rows(7, 33)),
        case("gradients of one value in two places", &[x], |_, v| v[0].sigmoid()?.add(&v[0].gelu()?)),
    ];
    for (name, shape) in
        [("all", vec![TOKENS, 40]), ("a row", vec![40]), ("a column", vec![TOKENS, 1]), ("one", vec![1])]
    {
        let inputs = [x, (Activation, shape.as_slice())];
        cases.push(case(&format!("add {name}"), &inputs, |_, v| v[0].add(&v[1])));
        cases.push(case(&format!("multiply with {name}"), &inputs, |_, v| v[0].mul(&v[1])));
    }
    cases
}

fn products() -> Vec<Case> {
    let x: (Role, &[usize]) = (Activation, &[TOKENS, 96]);
    let weight: (Role, &[usize]) = (Parameter, &[64, 96]);
    let bias: (Role, &[usize]) = (Parameter, &[64]);
    vec![
        case("matmul", &[(Parameter, &[70, 33]), (Parameter, &[33, 50])], |_, v| v[0].matmul(&v[1])),
        case("matmul with a transpose", &[(Parameter, &[70, 33]), (Parameter, &[50, 33])], |_, v| {
            v[0].matmul_transposed(&v[1])
        }),
        case("linear", &[x, weight], |_, v| v[0].linear(&v[1], None)),
        case("linear with bias", &[x, weight, bias], |_, v| v[0].linear(&v[1], Some(&v[2]))),
        case("linear of gelu", &[x, weight, bias], |_, v| v[0].gelu_linear(&v[1], Some(&v[2]))),
        case(
            "linear of odd widths",
            &[(Activation, &[TOKENS, 24]), (Parameter, &[10, 24]), (Parameter, &[10])],
            |_, v| v[0].linear(&v[1], Some(&v[2])),
        ),
        case(
            "three linear maps",
            &[x, weight, bias, (Parameter, &[32, 96]), (Parameter, &[32]), (Parameter, &[32, 96]), (Parameter, &[32])],
            |_, v| {
                let maps = v[0].linears(&[(&v[1], Some(&v[2])), (&v[3], Some(&v[4])), (&v[5], Some(&v[6]))])?;
                maps[0].sum_columns()?.add(&maps[1].mul(&maps[2])?.sum_columns()?)
            },
        ),
        case(
            "three linear maps, one of them unused",
            &[x, weight, (Parameter, &[32, 96]), (Parameter, &[32, 96])],
            |_, v| {
                let maps = v[0].linears(&[(&v[1], None), (&v[2], None), (&v[3], None)])?;
                maps[0].sum_columns()?.add(&maps[2].sum_columns()?)
            },
        ),
    ]
}

fn norms() -> Vec<Case> {
    let mut cases = Vec::new();
    for columns in [384, 768, 1024, 100] {
        let shape = [TOKENS, columns];
        let rows: (Role, &[usize]) = (Activation, &shape);
        let column = [columns];
        let affine: (Role, &[usize]) = (Parameter, &column);
        cases.push(case(&format!("layer norm, {columns}"), &[rows, affine, affine], |_, v| {
            v[0].layer_norm(&v[1], &v[2], EPSILON)
        }));
        for probability in [0.0, 0.1] {
            let name = format!("residual norm, {columns}, dropout {probability}");
            let dropout = ResidualDropout { probability, site: site(Purpose::FeedForwardDropout) };
            cases.push(case(&name, &[rows, rows, affine, affine], move |sequences, v| {
                let norm = Norm { gain: &v[2], bias: &v[3], epsilon: EPSILON };
                v[0].residual_norm(End { residual: &v[1], sequences, dropout: Some(dropout), norm })
            }));
        }
    }
    cases.push(case("dropout", &[(Activation, &[TOKENS, 50])], |sequences, v| {
        v[0].dropout(sequences, 0.3, site(Purpose::EmbeddingDropout))
    }));
    cases.push(case("rms norm", &[(Activation, &[TOKENS, 96]), (Parameter, &[32])], |_, v| {
        v[0].rms_norm(&v[1], EPSILON)
    }));
    cases.push(case(
        "rms norm beside others",
        &[(Activation, &[TOKENS, 64]), (Parameter, &[32, 64]), (Parameter, &[64, 64]), (Parameter, &[16])],
        |_, v| {
            let maps = v[0].linears(&[(&v[1], None), (&v[2], None)])?;
            maps[1].rms_norm(&v[3], EPSILON)
        },
    ));
    cases
}

/// Query heads, kv heads, head dimension.
type Heads = (usize, usize, usize);

fn attention(heads: Heads, causal: bool, probability: f32) -> Attention {
    let (n_heads, n_kv_heads, _) = heads;
    let dropout = AttentionDropout { probability, site: site(Purpose::AttentionDropout) };
    Attention { n_heads, n_kv_heads, causal, dropout: (probability > 0.0).then_some(dropout) }
}

fn attentions() -> Vec<Case> {
    let mut cases = Vec::new();
    let all_heads: [Heads; 5] = [(2, 2, 64), (4, 2, 32), (2, 1, 64), (2, 2, 24), (1, 1, 128)];
    for heads in all_heads {
        let (n_heads, n_kv_heads, d) = heads;
        let (query, key) = ([TOKENS, n_heads * d], [TOKENS, n_kv_heads * d]);
        let qkv: [(Role, &[usize]); 3] = [(Activation, &query), (Activation, &key), (Activation, &key)];
        for (causal, probability) in [(false, 0.0), (false, 0.1), (true, 0.0), (true, 0.2)] {
            let name =
                format!("attention, {n_heads} heads over {n_kv_heads} of {d}, causal {causal}, dropout {probability}");
            let options = attention(heads, causal, probability);
            cases.push(case(&name, &qkv, move |sequences, v| Var::attention(&v[0], &v[1], &v[2], sequences, options)));
            let rows = if causal { TOKENS } else { LENGTHS.len() };
            let fitness = [rows, n_kv_heads * d];
            let inputs = [qkv[0], qkv[1], qkv[2], (Positive, fitness.as_slice())];
            cases.push(case(&format!("modulated {name}"), &inputs, move |sequences, v| {
                let modulation = (&v[3], Modulate { head_dim: d, scale: d as f32 });
                Var::modulated_attention(&v[0], &v[1], &v[2], sequences, options, modulation)
            }));
        }
    }
    let inputs: [(Role, &[usize]); 4] =
        [(Activation, &[TOKENS, 64]), (Parameter, &[128, 64]), (Parameter, &[128, 64]), (Parameter, &[128, 64])];
    cases.push(case("attention of three linear maps", &inputs, |sequences, v| {
        let maps = v[0].linears(&[(&v[1], None), (&v[2], None), (&v[3], None)])?;
        Var::attention(&maps[0].scale(0.1)?, &maps[1], &maps[2], sequences, attention((2, 2, 64), false, 0.1))
    }));
    cases
}

fn genetics() -> Vec<Case> {
    let mut cases = Vec::new();
    for d in [32, 64, 20] {
        let shape = [TOKENS, 2 * d];
        let values: (Role, &[usize]) = (Activation, &shape);
        for causal in [false, true] {
            cases.push(case(&format!("gene fitness, {d} genes, causal {causal}"), &[values], move |sequences, v| {
                v[0].gene_fitness(sequences, GeneFitness { head_dim: d, causal, ancestry: None })?.scale(d as f32)
            }));
        }
        cases.push(case(
            &format!("gene fitness of an ancestry, {d} genes"),
            &[values, (Positive, &shape)],
            move |sequences, v| {
                let ancestry = Some(Ancestry::Shares(v[1].value().clone()));
                v[0].gene_fitness(sequences, GeneFitness { head_dim: d, causal: false, ancestry })?.scale(d as f32)
            },
        ));
        for per_token in [false, true] {
            let fitness = [if per_token { TOKENS } else { LENGTHS.len() }, d];
            let name = format!("modulation, {d} genes, of each token {per_token}");
            cases.push(case(&name, &[values, (Positive, &fitness)], move |sequences, v| {
                v[0].modulate(&v[1], sequences, Modulate { head_dim: d, scale: 3.0 })
            }));
        }
        for (ancestry, causal) in [(false, false), (true, false), (false, true)] {
            let name = format!("genetic attention, {d} genes, ancestry {ancestry}, causal {causal}");
            cases.push(case(&name, &[values, values, values], move |sequences, v| {
                let shares = || -> Result<Tensor> {
                    let shares: Vec<f32> = (0..TOKENS * 2 * d).map(|i| (i * 7 % 5) as f32 / 32.0).collect();
                    as_activation(&Tensor::from_slice(v[0].value().device(), &[TOKENS, 2 * d], &shares)?)
                };
                let ancestry = ancestry.then(shares).transpose()?.map(Ancestry::Shares);
                let fitness = GeneFitness { head_dim: d, causal, ancestry };
                let genetic = Genetic { fitness, known: None, modulate: Modulate { head_dim: d, scale: d as f32 } };
                Var::genetic_attention(&v[0], &v[1], &v[2], sequences, attention((2, 2, d), causal, 0.1), genetic)
            }));
        }
    }
    cases
}

fn ends() -> Vec<Case> {
    let mut cases = Vec::new();
    for (name, pooling) in [("mean", Pooling::Mean), ("first token", Pooling::Cls), ("maximum", Pooling::Max)] {
        cases.push(case(&format!("pooling, {name}"), &[(Activation, &[TOKENS, 200])], move |sequences, v| {
            v[0].pool(sequences, pooling)
        }));
    }
    cases.push(case("unit length", &[(Parameter, &[50, 200])], |_, v| v[0].l2_normalize()));
    let tables: [(Role, &[usize]); 3] = [(Parameter, &[500, 72]), (Parameter, &[130, 72]), (Parameter, &[2, 72])];
    cases.push(case("embeddings", &tables, |_, v| {
        let device = v[0].value().device();
        let ids = |of: fn(u32) -> u32| {
            let ids: Vec<u32> = (0..TOKENS as u32).map(of).collect();
            Ids::known_from_slice(device, &[TOKENS], &ids)
        };
        let (words, places, types) = (ids(|i| i * 37 % 411)?, ids(|i| i % 130)?, ids(|_| 0)?);
        Var::embedding_sum(&[(&words, &v[0]), (&places, &v[1]), (&types, &v[2])])
    }));
    for symmetric in [false, true] {
        let inputs: [(Role, &[usize]); 2] = [(Parameter, &[40, 64]), (Parameter, &[60, 64])];
        cases.push(case(&format!("InfoNCE, symmetric {symmetric}"), &inputs, move |_, v| {
            let excluded = vec![(0, 7), (3, 55), (39, 2)];
            let options = InfoNce { temperature: 0.05, symmetric, excluded };
            Var::info_nce(&v[0].l2_normalize()?, &v[1].l2_normalize()?, &options)
        }));
    }
    cases
}
