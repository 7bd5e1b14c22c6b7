//! AdamW (Loshchilov and Hutter 2019, arXiv 1711.05101), as PyTorch computes it.

use crate::gradients::Gradients;
use crate::kernels::{AdamWUpdate, Updated};
use crate::parameters::{ParameterId, Parameters};
use crate::tensor::Tensor;

/// The optimizer's constants.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamW {
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the denominator.
    pub epsilon: f64,
    /// Decoupled weight decay of the tensors that decay.
    pub weight_decay: f64,
}

impl Default for AdamW {
    fn default() -> Self {
        AdamW { beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weight_decay: 0.01 }
    }
}

/// What the optimizer remembers: both moments of every parameter, and how many updates there were.
#[derive(Clone, Debug)]
pub struct Moments {
    /// Updates made.
    pub step: u64,
    /// First moment, by parameter.
    pub first: Vec<Tensor>,
    /// Second moment, by parameter.
    pub second: Vec<Tensor>,
}

impl Moments {
    /// Before the first update.
    pub fn new(parameters: &Parameters) -> Self {
        let zeros = || parameters.iter().map(|(_, _, tensor)| Tensor::zeros(tensor.device(), tensor.shape())).collect();
        Moments { step: 0, first: zeros(), second: zeros() }
    }
}

impl AdamW {
    /// Updates every parameter that has a gradient, from gradients scaled down to a norm of `max_norm` if theirs is
    /// larger: matrices decay, vectors (biases and norms) do not. Gives the norm `[1]` that the gradients had. Where
    /// it or the loss `[1]` is not finite nothing is updated. `None` of no gradients.
    pub fn update(
        &self,
        parameters: &mut Parameters,
        gradients: &Gradients,
        moments: &mut Moments,
        learning_rate: f64,
        max_norm: f64,
        loss: &Tensor,
    ) -> Option<Tensor> {
        let norm = global_norm(gradients)?;
        moments.step += 1;
        let state = moments.first.iter_mut().zip(&mut moments.second);
        let all = parameters.tensors_mut().zip(state).enumerate();
        let updated = all.filter_map(|(index, (parameter, (first, second)))| {
            let weight_decay = if parameter.shape().len() > 1 { self.weight_decay } else { 0.0 };
            let gradient = gradients.of_parameter(ParameterId(index))?;
            Some(Updated { gradient, parameter, moments: [first, second], weight_decay })
        });
        let update = AdamWUpdate { learning_rate, step: moments.step, max_norm, norm: &norm, loss };
        norm.device().kernels().adamw(self, update, updated.collect());
        Some(norm)
    }
}

/// The Euclidean norm `[1]` of all parameters' gradients together; `None` of none.
pub fn global_norm(gradients: &Gradients) -> Option<Tensor> {
    norm(gradients.parameters().map(|(_, gradient)| gradient.values()))
}

/// The Euclidean norm `[1]` of all elements of some tensors of one device; `None` of none.
pub fn norm<'a>(tensors: impl IntoIterator<Item = &'a Tensor>) -> Option<Tensor> {
    let tensors: Vec<&Tensor> = tensors.into_iter().collect();
    let mut norm = Tensor::empty(tensors.first()?.device(), &[1]);
    norm.device().clone().kernels().global_norm(&tensors, &mut norm);
    Some(norm)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{device, random};
    use crate::{Gradient, Ids, Tape, Var};

    /// The formula of the paper's Algorithm 2 in double precision, beside twenty updates of ours.
    #[test]
    fn updates_follow_the_published_algorithm() {
        let options = AdamW { weight_decay: 0.1, ..AdamW::default() };
        for shape in [vec![3, 5], vec![7]] {
            let mut parameters = Parameters::default();
            let id = parameters.insert("w", random(&shape, 1));
            let mut expected: Vec<f64> = parameters.get(id).data().iter().map(|&x| f64::from(x)).collect();
            let (mut m, mut v) = (vec![0.0; expected.len()], vec![0.0; expected.len()]);
            let mut moments = Moments::new(&parameters);
            let decay = if shape.len() > 1 { 0.1 } else { 0.0 };
            for step in 1..=20 {
                let gradient = random(&shape, 100 + step);
                let tape = Tape::recording();
                let w = tape.parameter(&parameters, id);
                let loss = w.mul(&tape.constant(gradient.clone())).unwrap().sum().unwrap();
                let gradients = tape.backward(&loss).unwrap();
                drop((w, loss));
                let half = 0.5 * f64::from(global_norm(&gradients).unwrap().item());
                options.update(&mut parameters, &gradients, &mut moments, 1e-2, half, &Tensor::zeros(&device(), &[1]));
                for i in 0..expected.len() {
                    let g = f64::from(gradient.data()[i]) * 0.5;
                    m[i] = 0.9 * m[i] + 0.1 * g;
                    v[i] = 0.999 * v[i] + 0.001 * g * g;
                    let (mh, vh) =
                        (m[i] / (1.0 - 0.9_f64.powi(step as i32)), v[i] / (1.0 - 0.999_f64.powi(step as i32)));
                    expected[i] -= 1e-2 * (mh / (vh.sqrt() + 1e-8) + decay * expected[i]);
                }
            }
            for (&got, want) in parameters.get(id).data().iter().zip(expected) {
                assert!((f64::from(got) - want).abs() < 1e-5, "{got} {want}");
            }
        }
    }

    #[test]
    fn a_gradient_of_few_rows_updates_as_the_same_with_its_zeros_to_the_last_bit() {
        let shape = [500, 70];
        let table = random(&shape, 1);
        let updated = |dense: bool| {
            let mut parameters = Parameters::default();
            let id = parameters.insert("table", table.clone());
            let mut moments = Moments::new(&parameters);
            for step in 0..5 {
                let ids: Vec<u32> = (0..40).map(|i| (i * i + 3 * step) % 500).collect();
                let ids = Ids::from_slice(&device(), &[40], &ids).unwrap();
                let tape = Tape::recording();
                let leaf = tape.parameter(&parameters, id);
                let found = Var::embedding_sum(&[(&ids, &leaf)]).unwrap();
                let mut loss = found.mul(&found).unwrap().sum().unwrap();
                if dense {
                    // Every row takes part, with a gradient of zero.
                    loss = loss.add(&leaf.scale(0.0).unwrap().sum().unwrap()).unwrap();
                }
                let gradients = tape.backward(&loss).unwrap();
                assert_eq!(dense, matches!(gradients.of_parameter(id), Some(Gradient::Dense(_))));
                drop((leaf, found, loss));
                let zero = Tensor::zeros(&device(), &[1]);
                AdamW::default().update(&mut parameters, &gradients, &mut moments, 1e-2, 1e9, &zero);
            }
            [parameters.get(id), &moments.first[0], &moments.second[0]].map(Tensor::to_vec)
        };
        assert!(updated(false) == updated(true));
    }

    #[test]
    fn the_global_norm_is_of_the_gradients_as_they_are_after_a_linear_map_and_a_sum_of_two() {
        for shape in [[3, 5], [200, 130], [384, 256]] {
            let mut parameters = Parameters::default();
            let id = parameters.insert("w", random(&shape, 1));
            let mut gradients = Gradients::default();
            for round in 0..3 {
                let tape = Tape::recording();
                let x = tape.constant(random(&[70, shape[1]], round));
                let y = x.linear(&tape.parameter(&parameters, id), None).unwrap();
                gradients = tape.backward_from(&y, random(&[70, shape[0]], 10 + round), gradients).unwrap();
                let values = gradients.of_parameter(id).unwrap().values().to_vec();
                let expected = values.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt();
                let norm = f64::from(global_norm(&gradients).unwrap().item());
                assert!((norm / expected - 1.0).abs() < 1e-6, "{shape:?}, round {round}: {norm} {expected}");
            }
        }
    }

    #[test]
    fn the_global_norm_is_that_of_all_gradients_together() {
        let mut parameters = Parameters::default();
        let ids = [parameters.insert("a", random(&[2, 3], 1)), parameters.insert("b", random(&[40_000], 2))];
        let tape = Tape::recording();
        let [a, b] = ids.map(|id| tape.parameter(&parameters, id));
        let loss = a.mul(&a).unwrap().sum().unwrap().add(&b.mul(&b).unwrap().sum().unwrap()).unwrap();
        let gradients = tape.backward(&loss).unwrap();
        let squares = parameters.iter().flat_map(|(_, _, x)| x.to_vec()).map(|x| 4.0 * f64::from(x).powi(2));
        let expected = squares.sum::<f64>().sqrt();
        assert!((f64::from(global_norm(&gradients).unwrap().item()) / expected - 1.0).abs() < 1e-6);
    }

    #[test]
    fn nothing_is_updated_where_loss_or_gradients_are_not_finite() {
        let mut parameters = Parameters::default();
        let id = parameters.insert("w", random(&[3, 5], 1));
        let mut moments = Moments::new(&parameters);
        let before = parameters.get(id).to_vec();
        for (factor, loss) in [(1.0, f32::NAN), (f32::INFINITY, 1.0)] {
            let tape = Tape::recording();
            let total = tape.parameter(&parameters, id).scale(factor).unwrap().sum().unwrap();
            let gradients = tape.backward(&total).unwrap();
            drop(total);
            let loss = Tensor::full(&device(), &[1], loss);
            AdamW::default().update(&mut parameters, &gradients, &mut moments, 1.0, 1.0, &loss);
            assert_eq!(parameters.get(id).to_vec(), before);
            assert!(moments.first[0].to_vec().iter().all(|&m| m == 0.0));
        }
    }
}
