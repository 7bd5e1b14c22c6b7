//! The Transformers layout: `config.json` and `model.safetensors`.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs;
use std::ops::Deref;
use std::path::{Path, PathBuf};

use mendel_engine::{Device, Parameters, Tensor};
use safetensors::{Dtype, SafeTensors, View};

use super::layout::declare;
use super::{BertConfig, BertModel, ModelError};
use crate::files::{mapped, write_atomically};

/// The configuration's file name.
pub const CONFIG_FILE: &str = "config.json";
/// The weights' file name.
pub const WEIGHTS_FILE: &str = "model.safetensors";

/// Parts of a pretraining checkpoint that a dual encoder has no use for.
const UNUSED_PREFIXES: [&str; 2] = ["pooler.", "cls."];
const UNUSED: [&str; 1] = ["embeddings.position_ids"];

/// Tensors by name from the bytes of a safetensors file called `file`; only those that `wanted` says.
pub fn tensors_from_bytes(
    file: &str,
    bytes: &[u8],
    device: &Device,
    wanted: impl Fn(&str) -> bool,
) -> Result<BTreeMap<String, Tensor>, ModelError> {
    let tensors =
        SafeTensors::deserialize(bytes).map_err(|source| ModelError::Weights { file: file.into(), source })?;
    let mut found = BTreeMap::new();
    for (name, view) in tensors.iter().filter(|(name, _)| wanted(name)) {
        if view.dtype() != Dtype::F32 {
            let found = format!("{:?}", view.dtype());
            return Err(ModelError::Type { name: name.into(), file: file.into(), found });
        }
        let filled = Tensor::from_slice(device, view.shape(), &numbers_of(view.data()));
        found.insert(name.to_owned(), filled.expect("safetensors has checked the size of the shape"));
    }
    Ok(found)
}

/// The numbers that little-endian bytes are: the bytes themselves, where the machine takes them so.
fn numbers_of(bytes: &[u8]) -> Cow<'_, [f32]> {
    match bytemuck::try_cast_slice(bytes) {
        Ok(numbers) if cfg!(target_endian = "little") => Cow::Borrowed(numbers),
        _ => bytes.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect(),
    }
}

/// A tensor as safetensors wants it; its bytes are made when they are written, one tensor at a time.
struct Encoded<'a>(&'a Tensor);

impl View for Encoded<'_> {
    fn dtype(&self) -> Dtype {
        Dtype::F32
    }

    fn shape(&self) -> &[usize] {
        self.0.shape()
    }

    fn data(&self) -> Cow<'_, [u8]> {
        self.0.to_vec().iter().flat_map(|x| x.to_le_bytes()).collect()
    }

    fn data_len(&self) -> usize {
        4 * self.0.len()
    }
}

/// The bytes of a safetensors file of these tensors.
pub fn tensors_to_bytes<'a>(tensors: impl Iterator<Item = (String, &'a Tensor)>) -> Vec<u8> {
    let metadata = Some([("format".to_owned(), "pt".to_owned())].into());
    safetensors::serialize(tensors.map(|(name, tensor)| (name, Encoded(tensor))), metadata)
        .expect("serialising to memory cannot fail")
}

/// A parameter's name in the encoder: without the `bert.` prefix, and with today's names of a norm's gain and bias.
fn canonical(name: &str) -> String {
    let name = name.strip_prefix("bert.").unwrap_or(name);
    name.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias")
}

fn is_unused(name: &str) -> bool {
    UNUSED.contains(&name) || UNUSED_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

/// Exactly the parameters that the configuration declares, from the bytes of a weights file.
pub(super) fn read_parameters(
    file: &str,
    bytes: &[u8],
    config: &BertConfig,
    device: &Device,
) -> Result<Parameters, ModelError> {
    let read = tensors_from_bytes(file, bytes, device, |name| !is_unused(&canonical(name)))?;
    let mut tensors = BTreeMap::new();
    for (name, tensor) in read {
        let name = canonical(&name);
        if tensors.insert(name.clone(), tensor).is_some() {
            return Err(ModelError::Repeated { name, file: file.into() });
        }
    }
    let mut parameters = Parameters::default();
    for declared in declare(config) {
        let name = declared.name;
        let Some(tensor) = tensors.remove(&name) else {
            return Err(ModelError::Missing { name, file: file.into() });
        };
        if tensor.shape() != declared.shape {
            let found = tensor.shape().to_vec();
            return Err(ModelError::Misshapen { name, file: file.into(), found, expected: declared.shape });
        }
        parameters.insert(&name, tensor);
    }
    match tensors.pop_first() {
        Some((name, tensor)) => Err(ModelError::Extra { name, shape: tensor.shape().to_vec(), file: file.into() }),
        None => Ok(parameters),
    }
}

/// A file of the model folder.
fn find(folder: &Path, name: &'static str) -> Result<PathBuf, ModelError> {
    let path = folder.join(name);
    if path.is_file() {
        return Ok(path);
    }
    Err(ModelError::NotAModel { folder: folder.into(), missing: name, meant: model_below(folder) })
}

/// The bytes of a model folder's weights, mapped where the file system can.
pub(super) fn read_weights(folder: &Path) -> Result<Box<dyn Deref<Target = [u8]>>, ModelError> {
    let path = find(folder, WEIGHTS_FILE)?;
    if let Ok(mapped) = mapped(&path) {
        return Ok(Box::new(mapped));
    }
    let bytes = fs::read(&path).map_err(|source| ModelError::Read { path, source })?;
    Ok(Box::new(bytes))
}

/// The first model of those in a folder, or in `models/` there.
fn model_below(folder: &Path) -> Option<PathBuf> {
    let models = [folder.join("models"), folder.into()];
    let folders = models.iter().filter_map(|models| fs::read_dir(models).ok()).flatten().flatten();
    folders.map(|entry| entry.path()).filter(|path| path.join(CONFIG_FILE).is_file()).min()
}

impl BertConfig {
    /// The configuration in a model folder.
    pub fn load(folder: &Path) -> Result<Self, ModelError> {
        let path = find(folder, CONFIG_FILE)?;
        let bytes = fs::read(&path).map_err(|source| ModelError::Read { path: path.clone(), source })?;
        let config: BertConfig =
            serde_json::from_slice(&bytes).map_err(|source| ModelError::Config { path, source })?;
        config.validate()?;
        Ok(config)
    }
}

impl BertModel {
    /// Writes `config.json` and `model.safetensors` into a folder, which is made if it is not there.
    pub fn save(&self, folder: &Path) -> Result<(), ModelError> {
        let config = serde_json::to_vec_pretty(self.config()).expect("a configuration is plain data");
        let weights = tensors_to_bytes(self.parameters().iter().map(|(_, name, tensor)| (name.to_owned(), tensor)));
        for (name, bytes) in [(CONFIG_FILE, config), (WEIGHTS_FILE, weights)] {
            write_atomically(&folder.join(name), &bytes)?;
        }
        Ok(())
    }
}
