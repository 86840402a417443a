//! What a run in an ordinary build is made of: what is kept of a target, and mutations of it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::Target;
use crate::mutate::{Numbers, mutate};

/// What is kept of a target: inputs that reached new code, and inputs that found a defect.
pub fn kept(target: &Target) -> io::Result<Vec<(PathBuf, Vec<u8>)>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut inputs = Vec::new();
    for kind in ["corpus", "found"] {
        let directory = root.join(kind).join(target.name);
        if !directory.exists() {
            continue;
        }
        for entry in fs::read_dir(directory)? {
            let path = entry?.path();
            let bytes = fs::read(&path)?;
            inputs.push((path, bytes));
        }
    }
    // A directory has no order of its own.
    inputs.sort();
    Ok(inputs)
}

/// Writes each target's seeds to a folder of its own in `root`.
pub fn write_seeds(root: &Path) -> io::Result<()> {
    for target in crate::TARGETS {
        let directory = root.join(target.name);
        fs::create_dir_all(&directory)?;
        for (number, seed) in (target.seeds)().iter().enumerate() {
            fs::write(directory.join(format!("seed-{number:02}")), seed)?;
        }
    }
    Ok(())
}

/// Hands `executions` mutations of `seeds` to `run`: the same ones for the same name.
pub fn run(seeds: Vec<Vec<u8>>, name: &str, executions: u64, mut run: impl FnMut(&[u8])) {
    let seed = name.bytes().fold(0, |sum: u64, byte| {
        sum.wrapping_mul(31).wrapping_add(u64::from(byte))
    });
    let mut numbers = Numbers::new(seed);
    let mut input = Vec::new();
    for _ in 0..executions {
        mutate(&mut input, &seeds, &mut numbers);
        run(&input);
    }
}
