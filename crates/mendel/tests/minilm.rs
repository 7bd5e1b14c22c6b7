//! all-MiniLM-L6-v2 against sentence-transformers: the same token ids and the same embeddings.
//!
//! The model's folder is named by `MENDEL_TEST_MODEL` (benches/peers/README.md says where to get it), the folder of the
//! data sets by `MENDEL_SHARED_DATA`, else it is `../shared/data` beside the workspace. Without either the tests say so
//! and pass.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use flate2::read::GzDecoder;
use mendel::bert::{BertModel, tensors_from_bytes};
use mendel::layers::{Batch, Mode};
use mendel::tokenizer::Tokenizer;
use mendel_engine::ops::pool::Pooling;
use mendel_engine::{Device, Tape};
use serde::Deserialize;

/// The fixture's list of texts: where each lies and its token ids.
#[derive(Deserialize)]
struct Peer {
    max_tokens: usize,
    texts: Vec<PeerText>,
}

#[derive(Deserialize)]
struct PeerText {
    file: String,
    line: usize,
    field: String,
    ids: Vec<u32>,
}

fn peer() -> Peer {
    serde_json::from_str(include_str!("fixtures/minilm_embeddings.json")).unwrap()
}

fn peer_embeddings() -> Vec<Vec<f32>> {
    let bytes = include_bytes!("fixtures/minilm_embeddings.safetensors");
    let tensors = tensors_from_bytes("minilm_embeddings.safetensors", bytes, &Device::cpu(), |_| true).unwrap();
    tensors["embeddings"].data().chunks(384).map(<[f32]>::to_vec).collect()
}

/// The model's folder; `None`, and a word about it, where there is none.
fn model_folder() -> Option<PathBuf> {
    let folder = std::env::var_os("MENDEL_TEST_MODEL").map(PathBuf::from);
    match &folder {
        Some(folder) => assert!(folder.is_dir(), "MENDEL_TEST_MODEL={} is no folder", folder.display()),
        None => eprintln!("skipped: MENDEL_TEST_MODEL does not name the folder of all-MiniLM-L6-v2"),
    }
    folder
}

/// The data's folder; `None`, and a word about it, where there is none.
fn data_folder() -> Option<PathBuf> {
    let beside = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data");
    let folder = std::env::var_os("MENDEL_SHARED_DATA").map_or_else(beside, PathBuf::from);
    if !folder.join("stsb/test.tsv").is_file() {
        eprintln!("skipped: {} does not hold the data sets (MENDEL_SHARED_DATA names their folder)", folder.display());
        return None;
    }
    Some(folder)
}

/// The lines of a file, compressed or not.
fn lines(path: &Path) -> Vec<String> {
    let mut file = File::open(path).unwrap();
    let mut text = String::new();
    if path.extension().is_some_and(|extension| extension == "gz") {
        GzDecoder::new(file).read_to_string(&mut text).unwrap();
    } else {
        file.read_to_string(&mut text).unwrap();
    }
    text.split('\n').map(str::to_owned).collect()
}

/// The fixture's texts, read from the data sets.
fn texts(folder: &Path, peer: &Peer) -> Vec<String> {
    let mut files: HashMap<&str, Vec<String>> = HashMap::new();
    let mut texts = Vec::new();
    for PeerText { file, line, field, .. } in &peer.texts {
        let lines = files.entry(file).or_insert_with(|| lines(&folder.join(file)));
        let row = &lines[line - 1];
        texts.push(if file.ends_with(".tsv") {
            let column = lines[0].split('\t').position(|name| name == field).unwrap();
            row.split('\t').nth(column).unwrap().to_owned()
        } else {
            let row: serde_json::Value = serde_json::from_str(row).unwrap();
            row[field].as_str().unwrap().to_owned()
        });
    }
    texts
}

/// Unit vectors by mean pooling.
fn embed(model: &BertModel, texts: &[&[u32]]) -> Vec<Vec<f32>> {
    let ids: Vec<u32> = (0..).take(texts.len()).collect();
    let batch = Batch::pack(model.device(), texts, &ids).unwrap();
    let hidden = model.forward(&Tape::inference(), &batch, Mode::Evaluation).unwrap();
    let pooled = hidden.pool(&batch.sequences, Pooling::Mean).unwrap().l2_normalize().unwrap();
    pooled.value().data().chunks(384).map(<[f32]>::to_vec).collect()
}

#[test]
fn texts_have_the_token_ids_of_the_transformers_tokenizer() {
    let (Some(folder), Some(data)) = (model_folder(), data_folder()) else { return };
    let tokenizer = Tokenizer::from_folder(&folder).unwrap();
    let peer = peer();
    for (text, place) in texts(&data, &peer).iter().zip(&peer.texts) {
        let PeerText { file, line, field, ids } = place;
        assert_eq!(&tokenizer.encode(text, peer.max_tokens), ids, "{file}, line {line}, {field}");
    }
}

/// Single precision leaves 1.2e-7 in a component against double precision (benches/peers/README.md).
#[test]
fn embeddings_are_those_of_sentence_transformers() {
    let Some(folder) = model_folder() else { return };
    let model = BertModel::builder().folder(&folder).build().unwrap();
    let peer = peer();
    let (mut worst_cosine, mut worst_component) = (0.0_f64, 0.0_f32);
    let mut expected = peer_embeddings().into_iter();
    for texts in peer.texts.chunks(8) {
        let texts: Vec<&[u32]> = texts.iter().map(|text| text.ids.as_slice()).collect();
        for (got, expected) in embed(&model, &texts).iter().zip(&mut expected) {
            let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum::<f64>();
            let cosine = dot(got, &expected) / (dot(got, got) * dot(&expected, &expected)).sqrt();
            worst_cosine = worst_cosine.max(1.0 - cosine);
            let component = got.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            worst_component = worst_component.max(component);
        }
    }
    assert!(expected.next().is_none(), "every text has been compared");
    eprintln!("largest 1 − cosine {worst_cosine:.2e}, largest difference of a component {worst_component:.2e}");
    assert!(worst_cosine <= 1e-6 && worst_component <= 1e-4, "{worst_cosine:e} {worst_component:e}");
}

#[test]
fn a_text_has_the_same_embedding_to_the_bit_alone_and_in_a_batch() {
    let Some(folder) = model_folder() else { return };
    let peer = peer();
    // Short texts and long ones, with both kinds of attention.
    let texts: Vec<&[u32]> = peer.texts.iter().step_by(5).map(|text| text.ids.as_slice()).collect();
    for builder in [BertModel::builder(), BertModel::builder().genetic(mendel::default())] {
        let model = builder.folder(&folder).build().unwrap();
        let together = embed(&model, &texts);
        for (text, vector) in texts.iter().zip(&together) {
            assert!(embed(&model, &[text])[0] == *vector, "a text of {} tokens", text.len());
        }
    }
}
