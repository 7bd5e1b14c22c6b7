//! NVIDIA's libraries, opened when a GPU is first asked for.
//!
//! The bindings look for libraries in the loader's path alone. What lies elsewhere (a toolkit's folder, the packages
//! that PyTorch brings) is opened here first: the loader then knows it by its own name.

use std::path::PathBuf;

use libloading::Library;

use super::error::{CudaError, CudaResult};

/// A library, and the names of its files in the order of preference.
struct Wanted {
    what: &'static str,
    stem: &'static str,
    names: &'static [&'static str],
}

const DRIVER: Wanted =
    Wanted { what: "the NVIDIA driver (libcuda)", stem: "cuda", names: &["libcuda.so", "libcuda.so.1"] };
const COMPILER: Wanted = Wanted {
    what: "the GPU's compiler (NVRTC of CUDA 12 or 13)",
    stem: "cuda_nvrtc",
    names: &["libnvrtc.so", "libnvrtc.so.13", "libnvrtc.so.12"],
};
const PRODUCTS: Wanted = Wanted {
    what: "the library of matrix products (cuBLASLt of CUDA 12 or 13)",
    stem: "cublas",
    names: &["libcublasLt.so", "libcublasLt.so.13", "libcublasLt.so.12"],
};

/// Opens all three, or says which is missing.
pub fn open_all() -> CudaResult<()> {
    [DRIVER, COMPILER, PRODUCTS].iter().try_for_each(open)
}

/// Opens the compiler alone, which needs no GPU.
pub fn open_compiler() -> CudaResult<()> {
    open(&COMPILER)
}

fn open(wanted: &Wanted) -> CudaResult<()> {
    let folders = folders(wanted.stem);
    let elsewhere = folders.iter().flat_map(|folder| wanted.names.iter().map(move |name| folder.join(name)));
    // What the user names comes before what the loader finds.
    let (named, elsewhere): (Vec<PathBuf>, Vec<PathBuf>) = if std::env::var_os(FOLDERS).is_some() {
        (elsewhere.collect(), Vec::new())
    } else {
        (Vec::new(), elsewhere.collect())
    };
    let candidates = named.into_iter().chain(wanted.names.iter().map(PathBuf::from)).chain(elsewhere);
    for candidate in candidates {
        // SAFETY: these libraries run nothing of note when they are opened.
        if let Ok(library) = unsafe { Library::new(&candidate) } {
            // Stays open for the bindings, which hold functions of it for as long as the program runs.
            std::mem::forget(library);
            return Ok(());
        }
    }
    let shown: Vec<String> = folders.iter().map(|folder| folder.display().to_string()).collect();
    let folders = if shown.is_empty() { "a CUDA toolkit".to_owned() } else { shown.join(", ") };
    Err(CudaError::Library { what: wanted.what, names: wanted.names.join(", "), folders })
}

/// Folders of libraries beside the loader's path, as PATH lists folders.
const FOLDERS: &str = "MENDEL_CUDA_LIBRARIES";

/// Where the user says that libraries are, and where toolkits and Python's packages keep them.
fn folders(stem: &str) -> Vec<PathBuf> {
    let set = |name| std::env::var_os(name).map(PathBuf::from);
    let named: Vec<PathBuf> = std::env::var_os(FOLDERS).iter().flat_map(std::env::split_paths).collect();
    let roots = ["CUDA_HOME", "CUDA_PATH"]
        .into_iter()
        .filter_map(set)
        .chain(["cuda", "cuda-13", "cuda-12"].iter().map(|name| PathBuf::from("/usr/local").join(name)));
    let toolkits = roots.map(|root| root.join("lib64"));
    let python = ["VIRTUAL_ENV", "CONDA_PREFIX"].into_iter().filter_map(set).flat_map(|root| {
        let versions = std::fs::read_dir(root.join("lib")).into_iter().flatten().flatten();
        versions.map(|version| version.path().join("site-packages/nvidia"))
    });
    let packages = python.flat_map(|nvidia| ["cu13", stem].map(|package| nvidia.join(package).join("lib")));
    named.into_iter().chain(toolkits).chain(packages).filter(|folder| folder.is_dir()).collect()
}
