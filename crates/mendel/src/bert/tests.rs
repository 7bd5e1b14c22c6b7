//! Model files: what is written comes back, what is damaged is refused in words, and nothing panics.

use std::fs;
use std::path::Path;

use mendel_engine::{Device, Tape};
use proptest::prelude::*;
use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::*;
use crate::attention::Genetic;
use crate::default;
use crate::layers::{Batch, Mode};

/// A model of a few hundred numbers.
fn tiny() -> BertConfig {
    BertConfig {
        vocab_size: 11,
        hidden_size: 8,
        num_hidden_layers: 2,
        num_attention_heads: 2,
        intermediate_size: 12,
        max_position_embeddings: 9,
        ..default()
    }
}

fn build(config: BertConfig) -> BertModel {
    BertModel::builder().config(config).seed(5).build().unwrap()
}

/// A folder with the files of [`tiny`].
fn saved() -> (TempDir, BertModel) {
    let folder = tempfile::tempdir().unwrap();
    let model = build(tiny());
    model.save(folder.path()).unwrap();
    (folder, model)
}

fn load(folder: &Path) -> Result<BertModel, ModelError> {
    BertModel::builder().folder(folder).build()
}

/// What is said of a folder that is not loaded.
fn refusal(folder: &Path) -> String {
    load(folder).expect_err("the folder should be refused").to_string()
}

/// The model's tensors by name, as bits.
fn bits(model: &BertModel) -> Vec<(String, Vec<usize>, Vec<u32>)> {
    let of = |tensor: &mendel_engine::Tensor| tensor.data().iter().map(|x| x.to_bits()).collect();
    model.parameters().iter().map(|(_, name, x)| (name.to_owned(), x.shape().to_vec(), of(x))).collect()
}

/// A tensor of a weights file.
#[derive(Clone)]
struct Stored {
    name: String,
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

fn stored(folder: &Path) -> Vec<Stored> {
    let file = fs::read(folder.join(WEIGHTS_FILE)).unwrap();
    let tensors = SafeTensors::deserialize(&file).unwrap();
    let tensor = |(name, view): (&str, TensorView<'_>)| Stored {
        name: name.to_owned(),
        dtype: view.dtype(),
        shape: view.shape().to_vec(),
        bytes: view.data().to_vec(),
    };
    tensors.iter().map(tensor).collect()
}

fn store(folder: &Path, tensors: &[Stored]) {
    let views = tensors.iter().map(|t| (&t.name, TensorView::new(t.dtype, t.shape.clone(), &t.bytes).unwrap()));
    fs::write(folder.join(WEIGHTS_FILE), safetensors::serialize(views, None).unwrap()).unwrap();
}

/// Changes the stored tensors.
fn change(folder: &Path, change: impl FnOnce(&mut Vec<Stored>)) {
    let mut tensors = stored(folder);
    change(&mut tensors);
    store(folder, &tensors);
}

fn change_config(folder: &Path, field: &str, value: Value) {
    let path = folder.join(CONFIG_FILE);
    let mut config: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    config[field] = value;
    fs::write(path, config.to_string()).unwrap();
}

fn zeros(name: &str, shape: &[usize]) -> Stored {
    let bytes = vec![0; 4 * shape.iter().product::<usize>()];
    Stored { name: name.into(), dtype: Dtype::F32, shape: shape.to_vec(), bytes }
}

const QUERY: &str = "encoder.layer.1.attention.self.query.weight";

#[test]
fn a_saved_model_comes_back_to_the_bit_with_its_configuration() {
    let genetic = Genetic { population_size: 7, mutation_rate: 0.1 + 0.2, selection_pressure: 1e-9, ..default() };
    let mut unusual = tiny();
    unusual.other.insert("_name_or_path".into(), json!({"nested": [1, 2.5, null, "ü"]}));
    let configs = [
        tiny(),
        unusual,
        BertConfig { genetic: Some(genetic), n_kv_heads: Some(1), in_proj_dim: Some(3), qk_norm: true, ..tiny() },
        BertConfig { attention_bias: false, causal: true, layer_norm_eps: 1.1e-12, hidden_dropout_prob: 0.3, ..tiny() },
    ];
    for config in configs {
        let folder = tempfile::tempdir().unwrap();
        let mut model = build(config.clone());
        // Numbers that a detour through text or through arithmetic would change.
        let id = model.parameters().id("embeddings.word_embeddings.weight").unwrap();
        let odd = [f32::MIN_POSITIVE / 3.0, -0.0, f32::MAX, f32::INFINITY, f32::from_bits(0x7FC0_1234)];
        model.parameters_mut().get_mut(id).data_mut()[..5].copy_from_slice(&odd);
        model.save(&folder.path().join("made/on/the/way")).unwrap();
        let loaded = load(&folder.path().join("made/on/the/way")).unwrap();
        assert_eq!(loaded.config(), &config);
        assert_eq!(bits(&loaded), bits(&model));
    }
}

#[test]
fn a_loaded_model_computes_the_same_as_the_one_that_was_saved() {
    let (folder, model) = saved();
    let batch = Batch::pack(&Device::cpu(), &[&[2, 5, 7, 3], &[2, 3]], &[0, 1]).unwrap();
    let run = |model: &BertModel| model.forward(&Tape::inference(), &batch, Mode::Evaluation).unwrap().value().to_vec();
    assert_eq!(run(&load(folder.path()).unwrap()), run(&model));
}

#[test]
fn weights_load_with_the_prefix_the_old_names_and_the_parts_of_a_pretraining_checkpoint() {
    let (folder, model) = saved();
    change(folder.path(), |tensors| {
        for tensor in tensors.iter_mut() {
            let old = tensor.name.replace("LayerNorm.weight", "LayerNorm.gamma");
            tensor.name = format!("bert.{}", old.replace("LayerNorm.bias", "LayerNorm.beta"));
        }
        tensors.push(zeros("bert.pooler.dense.weight", &[8, 8]));
        tensors.push(zeros("bert.pooler.dense.bias", &[8]));
        tensors.push(zeros("cls.predictions.transform.LayerNorm.gamma", &[8]));
        tensors.push(zeros("cls.seq_relationship.bias", &[2]));
        let positions = (0..9_i64).flat_map(i64::to_le_bytes).collect();
        let name = "bert.embeddings.position_ids".into();
        tensors.push(Stored { name, dtype: Dtype::I64, shape: vec![1, 9], bytes: positions });
    });
    assert_eq!(bits(&load(folder.path()).unwrap()), bits(&model));
    change(folder.path(), |tensors| {
        tensors.iter_mut().for_each(|tensor| tensor.name = tensor.name.replacen("bert.", "", 1));
    });
    assert_eq!(bits(&load(folder.path()).unwrap()), bits(&model));
}

#[test]
fn a_missing_an_extra_a_misshapen_and_a_repeated_tensor_are_named() {
    let (folder, _) = saved();
    let file = folder.path().join(WEIGHTS_FILE).display().to_string();
    let whole = stored(folder.path());

    change(folder.path(), |tensors| tensors.retain(|tensor| tensor.name != QUERY));
    assert_eq!(refusal(folder.path()), format!("tensor {QUERY} is missing from {file}"));

    store(folder.path(), &whole);
    change(folder.path(), |tensors| tensors.push(zeros("encoder.layer.2.output.dense.bias", &[8])));
    let expected = "tensor encoder.layer.2.output.dense.bias [8] in";
    assert!(refusal(folder.path()).starts_with(expected), "{}", refusal(folder.path()));

    store(folder.path(), &whole);
    change(folder.path(), |tensors| {
        let query = tensors.iter_mut().find(|tensor| tensor.name == QUERY).unwrap();
        *query = zeros(QUERY, &[4, 16]);
    });
    let expected = format!("tensor {QUERY} in {file} has shape [4, 16], but the configuration asks for [8, 8]");
    assert_eq!(refusal(folder.path()), expected);

    store(folder.path(), &whole);
    let name = format!("bert.{QUERY}");
    change(folder.path(), |tensors| tensors.push(zeros(&name, &[8, 8])));
    assert_eq!(refusal(folder.path()), format!("{file} holds tensor {QUERY} twice, under two names"));
}

#[test]
fn a_tensor_of_another_type_is_named_with_its_type() {
    for (dtype, name) in [(Dtype::F16, "F16"), (Dtype::BF16, "BF16"), (Dtype::F64, "F64"), (Dtype::I64, "I64")] {
        let (folder, _) = saved();
        change(folder.path(), |tensors| {
            let query = tensors.iter_mut().find(|tensor| tensor.name == QUERY).unwrap();
            (query.dtype, query.bytes) = (dtype, vec![0; 64 * dtype.bitsize() / 8]);
        });
        let said = refusal(folder.path());
        assert!(
            said.starts_with(&format!("tensor {QUERY} in ")) && said.contains(&format!("of type {name};")),
            "{said}"
        );
    }
}

#[test]
fn a_folder_without_the_files_is_said_to_be_no_model() {
    for file in [CONFIG_FILE, WEIGHTS_FILE] {
        let (folder, _) = saved();
        fs::remove_file(folder.path().join(file)).unwrap();
        let expected = format!("{} is not a model: it has no {file} (a model folder holds", folder.path().display());
        assert!(refusal(folder.path()).starts_with(&expected), "{}", refusal(folder.path()));
        // A folder of that name is not a file.
        fs::create_dir(folder.path().join(file)).unwrap();
        assert!(refusal(folder.path()).starts_with(&expected));
    }
    assert!(refusal(Path::new("/nowhere/at/all")).starts_with("/nowhere/at/all is not a model"));
}

#[test]
fn a_truncated_or_foreign_weights_file_is_refused() {
    let (folder, _) = saved();
    let path = folder.path().join(WEIGHTS_FILE);
    let whole = fs::read(&path).unwrap();
    for damaged in
        [&whole[..0], &whole[..7], &whole[..8], &whole[..100], &whole[..whole.len() - 1], b"\x80\x02PK pickle"]
    {
        fs::write(&path, damaged).unwrap();
        let expected = format!("{} is not a safetensors file: ", path.display());
        assert!(refusal(folder.path()).starts_with(&expected), "{}", refusal(folder.path()));
    }
}

#[test]
fn a_configuration_that_is_garbage_is_refused_with_its_path() {
    let (folder, _) = saved();
    let path = folder.path().join(CONFIG_FILE);
    let deep = "[".repeat(100_000);
    for garbage in ["", "{", "[1, 2]", "null", "{\"hidden_size\": -8}", "{\"hidden_size\": \"8\"}", "\u{FEFF}{}", &deep]
    {
        fs::write(&path, garbage).unwrap();
        let expected = format!("{} is not a BERT configuration: ", path.display());
        assert!(refusal(folder.path()).starts_with(&expected), "{garbage:.20}: {}", refusal(folder.path()));
    }
    fs::write(&path, [0xFF, 0xFE, 0x00]).unwrap();
    assert!(refusal(folder.path()).contains("is not a BERT configuration"));
}

#[test]
fn a_configuration_that_the_encoder_does_not_have_is_refused_by_field() {
    let cases = [
        ("hidden_act", json!("relu"), "hidden_act is relu, but this encoder supports gelu"),
        ("hidden_act", json!("gelu_new"), "hidden_act is gelu_new, but this encoder supports gelu"),
        ("position_embedding_type", json!("relative_key"), "position_embedding_type is relative_key"),
        ("model_type", json!("roberta"), "model_type is roberta, but this encoder supports bert"),
        ("num_attention_heads", json!(3), "n_heads is 3: it must be a divisor of the model's width 8"),
        ("num_attention_heads", json!(0), "n_heads is 0"),
        ("num_hidden_layers", json!(0), "num_hidden_layers is 0"),
        ("num_hidden_layers", json!(257), "num_hidden_layers is 257"),
        ("vocab_size", json!(0), "vocab_size is 0"),
        ("hidden_size", json!(0), "hidden_size is 0"),
        ("max_position_embeddings", json!(0), "max_position_embeddings is 0"),
        ("hidden_dropout_prob", json!(1.0), "hidden_dropout_prob is 1"),
        ("attention_probs_dropout_prob", json!(-0.5), "dropout is -0.5"),
        ("n_kv_heads", json!(0), "n_kv_heads is 0"),
        ("genetic", json!({"mutation-rate": 1.5}), "mutation_rate is 1.5: it must be between 0 and 1"),
        ("genetic", json!({"population-size": 0}), "population_size is 0"),
    ];
    for (field, value, expected) in cases {
        let (folder, _) = saved();
        change_config(folder.path(), field, value);
        assert!(refusal(folder.path()).starts_with(expected), "{field}: {}", refusal(folder.path()));
    }
}

#[test]
fn sizes_beyond_all_memory_are_refused_against_the_stored_shapes() {
    let sizes = ["vocab_size", "hidden_size", "intermediate_size", "max_position_embeddings", "type_vocab_size"];
    for field in sizes.into_iter().chain(["in_proj_dim", "pad_token_id"]) {
        for size in [1_u64 << 40, 1 << 62, u64::MAX - 1] {
            let (folder, _) = saved();
            change_config(folder.path(), field, json!(size));
            match load(folder.path()) {
                Ok(_) => assert_eq!(field, "pad_token_id"),
                Err(error) => assert!(!error.to_string().is_empty()),
            }
        }
    }
    // A padding token outside the vocabulary has no row to clear.
    build(BertConfig { pad_token_id: usize::MAX, ..tiny() });
}

#[test]
fn drawn_weights_depend_on_seed_and_name_alone_so_that_arms_share_what_they_share() {
    let builder = || BertModel::builder().config(tiny()).seed(9);
    let standard = builder().build().unwrap();
    let others = [
        builder().genetic(default()).build().unwrap(),
        builder().qk_norm().build().unwrap(),
        builder().genetic(default()).qk_norm().build().unwrap(),
        builder().genetic(Genetic { num_generations: 0, ..default() }).causal().build().unwrap(),
        builder().config(BertConfig { num_hidden_layers: 3, ..tiny() }).build().unwrap(),
    ];
    for other in &others {
        for (_, name, tensor) in standard.parameters().iter() {
            let id = other.parameters().id(name).unwrap();
            assert_eq!(tensor.data(), other.parameters().get(id).data(), "{name}");
        }
    }
    let counts: Vec<usize> = others.iter().map(|other| other.parameters().len()).collect();
    let (all, layer) = (standard.parameters().len(), 16);
    assert_eq!(counts, [all, all + 4, all + 4, all, all + layer]);
    // Grouped queries change the shapes of keys and values and nothing else.
    let grouped = builder().n_kv_heads(1).build().unwrap();
    for (_, name, tensor) in standard.parameters().iter() {
        let other = grouped.parameters().get(grouped.parameters().id(name).unwrap());
        assert_eq!(
            tensor.data() == other.data(),
            !name.contains("self.key.") && !name.contains("self.value."),
            "{name}"
        );
    }
    assert_ne!(bits(&standard), bits(&builder().seed(10).build().unwrap()));
}

#[test]
fn drawn_weights_have_deviation_0_02_and_the_padding_row_is_zero() {
    let config = BertConfig { hidden_size: 64, vocab_size: 500, pad_token_id: 3, ..BertConfig::demo_tiny(500) };
    let model = build(BertConfig { intermediate_size: 128, qk_norm: true, ..config });
    for (_, name, tensor) in model.parameters().iter() {
        let data = tensor.data();
        if name.ends_with("norm.weight") || name.ends_with("LayerNorm.weight") {
            assert!(data.iter().all(|&x| x == 1.0), "{name}");
        } else if name.ends_with(".bias") {
            assert!(data.iter().all(|&x| x == 0.0), "{name}");
        } else {
            let zero_rows: Vec<usize> =
                (0..tensor.rows()).filter(|row| data[row * 64..][..64].iter().all(|&x| x == 0.0)).collect();
            let expected: &[usize] = if name == "embeddings.word_embeddings.weight" { &[3] } else { &[] };
            assert!(tensor.columns() != 64 || zero_rows == expected, "{name}: {zero_rows:?}");
            let drawn = (tensor.len() - 64 * expected.len()) as f64;
            let mean = data.iter().map(|&x| f64::from(x)).sum::<f64>() / drawn;
            let deviation = (data.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>() / drawn - mean * mean).sqrt();
            // Four standard errors: 1/√(2n) relative for the deviation, 0.02/√n for the mean.
            assert!((deviation / 0.02 - 1.0).abs() < 4.0 / (2.0 * drawn).sqrt(), "{name}: {deviation}");
            assert!(mean.abs() < 0.08 / drawn.sqrt(), "{name}: {mean}");
        }
    }
}

#[test]
fn changes_that_contradict_the_stored_shapes_name_both_shapes() {
    let (folder, model) = saved();
    let builder = || BertModel::builder().folder(folder.path());
    let grouped = builder().n_kv_heads(1).build().unwrap_err().to_string();
    assert!(grouped.starts_with("tensor encoder.layer.0.attention.self.key.weight in "), "{grouped}");
    assert!(grouped.ends_with("has shape [8, 8], but the configuration asks for [4, 8]"), "{grouped}");
    let latent = builder().in_proj_dim(3).build().unwrap_err().to_string();
    assert!(latent.starts_with("tensor encoder.layer.0.attention.self.query.weight in "), "{latent}");
    assert!(latent.ends_with("has shape [8, 8], but the configuration asks for [8, 3]"), "{latent}");
    // Drawing the weights instead is no contradiction.
    let drawn = builder().n_kv_heads(1).from_scratch(true).seed(5).build().unwrap();
    assert_eq!(drawn.config().n_kv_heads, Some(1));
    assert_eq!(bits(&builder().from_scratch(true).seed(5).build().unwrap()), bits(&model));
}

#[test]
fn what_a_folder_lacks_is_drawn_only_where_the_changes_ask_for_it() {
    let (folder, model) = saved();
    let changed = BertModel::builder().folder(folder.path()).genetic(default()).qk_norm().build().unwrap();
    for (_, name, tensor) in changed.parameters().iter() {
        match model.parameters().id(name) {
            Some(id) => assert_eq!(tensor.data(), model.parameters().get(id).data(), "{name}"),
            None => assert!(name.ends_with("_norm.weight") && tensor.data().iter().all(|&x| x == 1.0), "{name}"),
        }
    }
    // The folder's own configuration asks for more than the folder has.
    change_config(folder.path(), "qk_norm", json!(true));
    assert!(refusal(folder.path()).starts_with("tensor encoder.layer.0.attention.self.query_norm.weight is missing"));
    // And less: the standard arm of a folder with norms has them too, since nothing says otherwise.
    changed.save(folder.path()).unwrap();
    let standard = BertModel::builder().folder(folder.path()).standard().build().unwrap();
    assert!(standard.config().qk_norm && standard.config().genetic.is_none());
    assert_eq!(bits(&standard), bits(&changed));
}

#[test]
fn changes_that_cannot_be_are_refused_before_anything_is_drawn() {
    let builder = || BertModel::builder().config(tiny());
    let said = |builder: BertBuilder| builder.build().unwrap_err().to_string();
    assert!(said(builder().genetic(default()).causal()).contains("num_generations to 0"));
    let rate = Genetic { crossover_rate: f64::NAN, ..default() };
    assert_eq!(said(builder().genetic(rate)), "crossover_rate is NaN: it must be between 0 and 1");
    assert!(said(builder().n_kv_heads(3)).starts_with("n_kv_heads is 3"));
    assert!(said(builder().in_proj_dim(0)).starts_with("in_proj_dim is 0"));
    assert!(said(builder().dropout(f32::NAN)).starts_with("dropout is NaN"));
}

#[test]
fn texts_that_the_model_cannot_take_are_errors() {
    let model = build(tiny());
    let run = |texts: &[&[u32]]| {
        let ids: Vec<u32> = (0..).take(texts.len()).collect();
        let batch = Batch::pack(&Device::cpu(), texts, &ids)?;
        model.forward(&Tape::inference(), &batch, Mode::Evaluation).map(|out| out.shape().to_vec())
    };
    assert_eq!(run(&[&[1; 9], &[10]]).unwrap(), [10, 8]);
    assert!(run(&[&[1; 10]]).unwrap_err().to_string().contains("index 9 at place 9"));
    assert!(run(&[&[1, 11]]).unwrap_err().to_string().contains("index 11 at place 1"));
    assert!(run(&[&[1], &[]]).unwrap_err().to_string().contains("sequence 1 is empty"));
}

#[test]
fn a_text_has_the_same_vectors_alone_and_at_any_place_of_any_batch() {
    let texts: Vec<Vec<u32>> = [5, 1, 30, 2, 17].iter().map(|&n| (0..n).map(|i| (i * 7 + n) % 100).collect()).collect();
    let config = BertConfig::demo_tiny(100);
    let kinds = [None, Some(Genetic::default()), Some(Genetic { num_generations: 0, ..default() })];
    for genetic in kinds {
        let model = build(BertConfig { genetic, ..config.clone() });
        for mode in [Mode::Evaluation, Mode::Training { seed: 3, step: 8 }] {
            let run = |order: &[usize]| -> Vec<Vec<f32>> {
                let own: Vec<&[u32]> = order.iter().map(|&text| texts[text].as_slice()).collect();
                let ids: Vec<u32> = order.iter().map(|&text| 100 + text as u32).collect();
                let batch = Batch::pack(&Device::cpu(), &own, &ids).unwrap();
                let out = model.forward(&Tape::inference(), &batch, mode).unwrap();
                let of =
                    |range: std::ops::Range<usize>| out.value().data()[range.start * 128..range.end * 128].to_vec();
                batch.sequences.ranges().map(of).collect()
            };
            let together = run(&[0, 1, 2, 3, 4]);
            for order in [vec![4, 2, 0, 1, 3], vec![0], vec![1], vec![2], vec![3], vec![4], vec![3, 1]] {
                for (vectors, text) in run(&order).iter().zip(order) {
                    assert!(*vectors == together[text], "text {text}, {genetic:?}, {mode:?}");
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..default() })]

    #[test]
    fn no_damage_to_a_file_makes_a_panic(
        of_weights: bool, from_scratch: bool, cut in prop::option::of(0.0..1.0_f64),
        flips in prop::collection::vec((0.0..1.0_f64, any::<u8>()), 0..4), in_header: bool,
    ) {
        let (folder, _) = saved();
        let path = folder.path().join(if of_weights { WEIGHTS_FILE } else { CONFIG_FILE });
        let mut bytes = fs::read(&path).unwrap();
        // Most of the weights file is numbers; its header is where damage shows.
        let reach = if of_weights && in_header { 400 } else { bytes.len() };
        for (place, byte) in flips {
            bytes[(place * reach as f64) as usize] = byte;
        }
        if let Some(cut) = cut {
            bytes.truncate((cut * reach as f64) as usize);
        }
        fs::write(&path, bytes).unwrap();
        // Drawn weights of a configuration that says millions would only take time; no byte here can make it so.
        if let Err(error) = BertModel::builder().folder(folder.path()).from_scratch(from_scratch).build() {
            prop_assert!(!error.to_string().is_empty());
        }
    }

    #[test]
    fn any_bytes_for_a_weights_file_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(tensors_from_bytes("file", &bytes, &Device::cpu(), |_| true).is_err());
    }
}

#[test]
fn a_misspelt_field_of_the_genetic_part_is_refused_by_name() {
    let parse = |text: &str| serde_json::from_str::<BertConfig>(text);
    let config = parse(r#"{"genetic": {"mutation-rate": 0.3}}"#).unwrap();
    assert_eq!(config.genetic.unwrap().mutation_rate, 0.3);
    let error = parse(r#"{"genetic": {"mutation_rate": 0.3}}"#).unwrap_err().to_string();
    assert!(error.contains("'mutation_rate'"), "{error}");
}
