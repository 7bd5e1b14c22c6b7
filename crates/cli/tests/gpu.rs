//! The program on a GPU, which is an emulated one: tests/emulated_gpu/README.md says what that shows and what it hides.

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::SystemTime;

use serde_json::Value;

use common::emulated_gpu::Gpu;
use common::{assert_failed, assert_same_run, kill, lines, names, pairs, read_json, stderr, stdout, wait_until};

/// A run of a few steps on 56 small pairs into the folder `out`; `more` flags cover those of the run.
fn run(gpu: &Gpu, command: &str, out: &str, more: &[&str]) -> Vec<String> {
    let train = gpu.place.file("train.jsonl", lines(pairs().skip(8)));
    let dev = gpu.place.file("dev.jsonl", lines(pairs().take(8)));
    let out = gpu.place.argument(out);
    let settings = [
        ["--model", "demo-tiny"],
        ["--dataset", &train],
        ["--eval-dataset", &dev],
        ["--output-dir", &out],
        ["--batch-size", "8"],
        ["--device", "cuda"],
        ["--log-steps", "1"],
    ];
    let of_the_run = settings.iter().filter(|[flag, _]| !more.contains(flag)).flatten();
    [command].iter().chain(of_the_run).chain(more).map(|word| (*word).to_owned()).collect()
}

fn words(line: &[String]) -> Vec<&str> {
    line.iter().map(String::as_str).collect()
}

/// What the selftest prints of the checks whose names have one of these in them; it must pass.
fn selftest(gpu: &Gpu, precision: &str, only: &[&str]) -> String {
    let only = only.iter().flat_map(|part| ["--only", part]);
    let line = ["selftest", "--device", "cuda", "--precision", precision, "--steps", "2"];
    let table = gpu.succeed(&line.into_iter().chain(only).collect::<Vec<_>>());
    assert!(table.contains("Emulated GPU") && !table.contains("FAILED"), "{table}");
    table
}

#[test]
fn the_selftest_passes_in_bf16() {
    let Some(gpu) = Gpu::new() else { return };
    let table = selftest(&gpu, "bf16", &[]);
    for name in
        ["linear of gelu", "residual norm, 768, dropout 0.1", "evolution", "training of 2 steps, genetic, evolved"]
    {
        assert!(table.contains(name), "{name} is missing: {table}");
    }
}

#[test]
fn the_selftest_passes_in_f32() {
    let Some(gpu) = Gpu::new() else { return };
    let attention = ["attention, 4 heads over 2 of 32, causal true, dropout 0.2", "2 heads over 2 of 24, causal false"];
    let others = ["norm", "linear", "matmul", "genetic attention, 20 genes", "evolution", "AdamW", "InfoNCE"];
    let training = ["training of 2 steps, standard, heads of 64", "training of 2 steps, genetic, evolved"];
    let table = selftest(&gpu, "f32", &[attention.as_slice(), &others, &training].concat());
    assert!(table.lines().count() > 35, "{table}");
}

#[test]
fn no_kernel_touches_what_is_beside_its_arrays_in_whatever_order_its_threads_run() {
    let Some(gpu) = Gpu::new() else { return };
    for precision in ["f32", "bf16"] {
        let line = ["selftest", "--device", "cuda", "--precision", precision, "--steps", "1", "--only"];
        for only in
            ["training of 1 steps, genetic, evolved", "residual norm, 100", "over 1 of 64, causal true, dropout 0.2"]
        {
            let mut program = gpu.program(&[line.as_slice(), &[only]].concat());
            let output = program.env("EMULATED_GPU_CHECK", "1").env("EMULATED_GPU_ORDER", "shuffle").output().unwrap();
            assert_eq!(output.status.code(), Some(0), "{precision}: {}{}", stdout(&output), stderr(&output));
        }
    }
}

#[test]
fn every_command_releases_the_gpu_before_it_ends() {
    let Some(gpu) = Gpu::new() else { return };
    let released = |line: &[&str]| {
        let output = gpu.program(line).env("EMULATED_GPU_CHECK", "1").output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{line:?}: {}{}", stdout(&output), stderr(&output));
    };
    let bench = ["bench", "--shape", "demo-tiny", "--pairs", "4", "--steps", "1", "--device", "cuda", "--precision"];
    for precision in ["f32", "bf16"] {
        released(&[bench.as_slice(), &[precision]].concat());
        released(&words(&run(&gpu, "train", precision, &["--max-steps", "1", "--precision", precision])));
    }
    let texts = gpu.place.file("texts.txt", "a text\nanother");
    let (model, vectors) = (gpu.place.argument("bf16/models/standard-seed42"), gpu.place.argument("vectors.npy"));
    released(&["embed", &texts, "--model", &model, "--output", &vectors, "--device", "cuda"]);
}

#[cfg(unix)]
#[test]
fn ctrl_c_ends_a_command_at_once_whatever_the_gpus_libraries_are_doing() {
    let Some(gpu) = Gpu::new() else { return };
    let line = ["bench", "--shape", "demo-tiny", "--steps", "100000", "--device", "cuda"];
    let mut program = gpu.program(&line);
    let child = program.env("EMULATED_GPU_CHECK", "1").stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let kernels = gpu.place.path("cache/mendel/kernels");
    wait_until("the first kernels", || fs::read_dir(&kernels).is_ok_and(|files| files.count() > 0));
    common::interrupt(&child);
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{}", stderr(&output));
}

#[test]
fn training_waits_for_what_runs_aside_whichever_stream_is_ahead() {
    let Some(gpu) = Gpu::new() else { return };
    for ahead in ["1", "2"] {
        let line = ["selftest", "--device", "cuda", "--precision", "bf16", "--steps", "2", "--only", "training of"];
        let output = gpu.program(&line).env("EMULATED_GPU_DELAY", ahead).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{ahead}: {}{}", stdout(&output), stderr(&output));
    }
}

#[test]
fn a_selftest_of_no_check_is_refused() {
    let Some(gpu) = Gpu::new() else { return };
    let line = ["selftest", "--only", "atention", "--quiet"];
    assert_failed(&gpu.run(&line), 2, &line, &["no check has 'atention' in its name"]);
}

#[test]
fn info_names_the_gpu_and_what_auto_chooses() {
    let Some(gpu) = Gpu::new() else { return };
    let info: Value = serde_json::from_str(&gpu.succeed(&["info", "--json"])).unwrap();
    assert_eq!([&info["device"], &info["precision"]], ["cuda", "bf16"]);
    assert_eq!([&info["gpu"]["name"], &info["gpu"]["compute_capability"]], ["Emulated GPU", "9.0"]);
    let shown = gpu.succeed(&["info"]);
    assert!(shown.contains("Emulated GPU, compute capability 9.0, 1 GB"), "{shown}");
}

#[test]
fn the_libraries_are_also_found_where_the_environment_says() {
    let Some(gpu) = Gpu::new() else { return };
    let mut program = gpu.program(&["selftest", "--device", "cuda", "--only", "softmax"]);
    let output = program.env_remove("LD_LIBRARY_PATH").env("MENDEL_CUDA_LIBRARIES", &gpu.libraries).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(stdout(&output).contains("Emulated GPU in bf16"), "{}", stdout(&output));
}

#[test]
fn a_comparison_on_the_gpu_tells_the_gpus_memory_and_follows_the_cpus_loss() {
    let Some(gpu) = Gpu::new() else { return };
    let short = ["--max-steps", "3", "--precision", "f32"];
    gpu.succeed(&words(&run(&gpu, "compare", "gpu", &short)));
    gpu.succeed(&words(&run(&gpu, "train", "cpu", &[short.as_slice(), &["--device", "cpu"]].concat())));
    for arm in ["standard", "genetic"] {
        let results = read_json(&gpu.place.path("gpu").join(format!("{arm}_attention_results.json")));
        assert_eq!(results["peak_memory_kind"], "gpu", "{arm}");
        // Weights, gradients and two moments of the built-in model, and not what the process has beside them.
        let peak = results["peak_memory_gb"].as_f64().unwrap();
        assert!((0.005..0.2).contains(&peak), "{arm}: {peak} GB");
    }
    let of = |out: &str| read_json(&gpu.place.path(out).join("standard_attention_results.json"));
    assert_eq!(of("cpu")["peak_memory_kind"], "process");
    let [on_gpu, on_cpu] = ["gpu", "cpu"].map(|out| of(out)["final_loss"].as_f64().unwrap());
    assert!((on_gpu / on_cpu - 1.0).abs() < 1e-4, "{on_gpu} and {on_cpu}");
}

#[test]
fn a_run_that_was_killed_and_resumed_ends_in_the_bits_of_one_that_was_not() {
    let Some(gpu) = Gpu::new() else { return };
    let settings = [
        ["--attention", "genetic"],
        // Few organisms and generations: the emulated GPU takes its time for them.
        ["--population-size", "16"],
        ["--num-generations", "2"],
        ["--max-steps", "6"],
        ["--save-steps", "2"],
    ];
    let settings = settings.as_flattened();
    gpu.succeed(&words(&run(&gpu, "train", "straight", settings)));
    let line = run(&gpu, "train", "killed", settings);
    let checkpoint = gpu.place.path("killed/checkpoints/genetic-seed42/step-000004");
    let finished = gpu.place.path("killed/genetic_attention_results.json");
    for attempt in 0.. {
        assert!(attempt < 10, "the run was never killed in time");
        let mut child = gpu.program(&words(&line)).arg("--quiet").spawn().unwrap();
        wait_until("a checkpoint", || checkpoint.exists() || child.try_wait().unwrap().is_some());
        kill(&mut child);
        assert!(checkpoint.exists(), "the run ended without saving");
        if !finished.exists() {
            break;
        }
        fs::remove_dir_all(gpu.place.path("killed")).unwrap();
    }
    let output = gpu.run(&[words(&line).as_slice(), &["--resume"]].concat());
    let told = stderr(&output);
    assert_eq!(output.status.code(), Some(0), "{told}");
    assert!(told.contains("genetic goes on from") && !told.contains("step 2/6"), "{told}");
    assert_same_run(&gpu.place.path("straight"), &gpu.place.path("killed"), "genetic");
}

#[test]
fn too_little_memory_is_an_error_of_one_line_that_says_what_lowers_it() {
    let Some(gpu) = Gpu::new() else { return };
    let line = run(&gpu, "train", "out", &["--max-steps", "2", "--quiet"]);
    // Too little for the two workspaces of products, and at several places in the first steps and evaluations.
    for megabytes in [20, 50, 66, 68, 70, 72] {
        let mut program = gpu.program(&words(&line));
        program.env("EMULATED_GPU_MEMORY", format!("{}", megabytes << 20)).env("EMULATED_GPU_CHECK", "1");
        let output = program.output().unwrap();
        let numbers = format!("of {} are free on the GPU", megabytes << 20);
        let parts = ["out of GPU memory: ", " bytes were asked for, ", " are in use here, ", &numbers];
        let settings = ["--max-seq-len", "--precision bf16"];
        assert_failed(&output, 1, &words(&line), &[parts.as_slice(), &settings].concat());
        assert_eq!(stderr(&output).contains(", 0 are in use here"), megabytes < 64, "{}", stderr(&output));
    }
}

#[test]
fn a_gpu_that_is_not_there_is_told_with_how_many_there_are() {
    let Some(gpu) = Gpu::new() else { return };
    let line = run(&gpu, "train", "out", &["--device", "cuda:7", "--quiet"]);
    assert_failed(&gpu.run(&words(&line)), 1, &words(&line), &["there is no GPU 7: the driver sees 1"]);
}

#[test]
fn a_gpu_before_ampere_is_refused_by_name() {
    let Some(gpu) = Gpu::new() else { return };
    let line = ["selftest", "--device", "cuda", "--quiet"];
    let output = gpu.program(&line).env("EMULATED_GPU_CAPABILITY", "75").output().unwrap();
    assert_failed(&output, 1, &line, &["Emulated GPU has compute capability 7.5", "8.0 or higher"]);
}

#[test]
fn the_library_that_is_missing_is_named() {
    let Some(gpu) = Gpu::new() else { return };
    let line = ["selftest", "--device", "cuda", "--quiet"];
    let missing = [
        ("the NVIDIA driver (libcuda) is not there", "libcuda.so.1"),
        ("the GPU's compiler (NVRTC of CUDA 12 or 13) is not there", "libnvrtc.so"),
        ("the library of matrix products (cuBLASLt of CUDA 12 or 13) is not there", "libcublasLt.so"),
    ];
    let some = gpu.place.path("some");
    fs::create_dir(&some).unwrap();
    for (what, name) in missing {
        let output = gpu.program(&line).env("LD_LIBRARY_PATH", &some).output().unwrap();
        if !stderr(&output).contains("is not there") {
            println!("skipped: this machine has libraries of NVIDIA's");
            return;
        }
        assert_failed(&output, 1, &line, &[what, name, "MENDEL_CUDA_LIBRARIES"]);
        fs::copy(gpu.libraries.join(name), some.join(name)).unwrap();
    }
    // Without --device the CPU serves, and `info` says why.
    fs::remove_file(some.join("libnvrtc.so")).unwrap();
    let output = gpu.program(&["info"]).env("LD_LIBRARY_PATH", &some).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(stdout(&output).contains("No GPU is used: the GPU's compiler"), "{}", stdout(&output));
}

/// A copy of the emulated GPU's libraries that compiles nothing: it has no cache of its own.
fn without_compiled(gpu: &Gpu) -> PathBuf {
    let copy = gpu.place.path("libraries");
    fs::create_dir_all(copy.join("include")).unwrap();
    for name in ["libcuda.so.1", "libcuda.so", "libnvrtc.so", "libcublasLt.so"] {
        fs::copy(gpu.libraries.join(name), copy.join(name)).unwrap();
    }
    for name in names(&gpu.libraries.join("include")) {
        fs::copy(gpu.libraries.join("include").join(&name), copy.join("include").join(&name)).unwrap();
    }
    copy
}

/// Names, contents and times of the kernels that are kept.
fn kept(folder: &Path) -> Vec<(String, Vec<u8>, SystemTime)> {
    let of = |name: String| {
        let path = folder.join(&name);
        (name, fs::read(&path).unwrap(), fs::metadata(&path).unwrap().modified().unwrap())
    };
    names(folder).into_iter().map(of).collect()
}

#[test]
fn kernels_are_compiled_once_and_again_where_their_file_is_damaged() {
    let Some(gpu) = Gpu::new() else { return };
    let (copy, nowhere) = (without_compiled(&gpu), gpu.place.path("nowhere"));
    let line = ["selftest", "--device", "cuda", "--only", "softmax", "--quiet"];
    gpu.succeed(&line);
    let folder = gpu.place.path("cache/mendel/kernels");
    let first = kept(&folder);
    // At least what was asked for: others are not waited for at the end.
    assert!(first.iter().any(|(name, ..)| name.starts_with("softmax-")), "{:?}", names(&folder));
    assert!(first.iter().all(|(name, ..)| name.ends_with(".cubin")), "{:?}", names(&folder));
    // With no compiler to be found nothing can be compiled.
    let without_compiler = || {
        let mut program = gpu.program(&line);
        program.env("LD_LIBRARY_PATH", &copy).env("PATH", &nowhere).output().unwrap()
    };
    let output = without_compiler();
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(kept(&folder), first);
    let softmax = names(&folder).into_iter().find(|name| name.starts_with("softmax-")).unwrap();
    let place = folder.join(softmax);
    let whole = fs::read(&place).unwrap();
    let mut flipped = whole.clone();
    flipped[whole.len() / 2] ^= 1;
    for damaged in [&flipped, &whole[..whole.len() / 2], &whole[..7], &[]] {
        fs::write(&place, damaged).unwrap();
        assert_failed(&without_compiler(), 1, &line, &["softmax.cu does not compile for compute capability 9.0"]);
        gpu.succeed(&line);
        assert!(fs::read(&place).unwrap() == whole, "the damaged file is still there");
    }
}
