//! One target under libFuzzer, named by `FUZZ_TARGET`: libFuzzer has the command line to itself. Makes sense only in a
//! build that counts what code is reached: `scripts/fuzz.sh`. With `FUZZ_SEEDS`, writes each target's seeds to a folder
//! of its own in that one, and ends.
#![no_main]
#![allow(unsafe_code, reason = "libFuzzer calls in by names that are not mangled")]

use std::sync::OnceLock;

use fuzzing::target::named;
use fuzzing::{Target, plain};
use libfuzzer_sys::fuzz_target;

static TARGET: OnceLock<&'static Target> = OnceLock::new();

fn choose() -> &'static Target {
    if let Some(folder) = std::env::var_os("FUZZ_SEEDS") {
        let written = plain::write_seeds(folder.as_ref());
        std::process::exit(written.map_or_else(|error| panic!("cannot write seeds: {error}"), |()| 0));
    }
    let name = std::env::var("FUZZ_TARGET").unwrap_or_default();
    match named(&name) {
        Some(target) => target,
        None => {
            let names: Vec<_> = fuzzing::TARGETS.iter().map(|target| target.name).collect();
            eprintln!("FUZZ_TARGET={name:?} is none of {}", names.join(", "));
            std::process::exit(2);
        }
    }
}

fuzz_target!(
    // Before libFuzzer begins: it takes an end of the process for a defect.
    init: { TARGET.get_or_init(choose); },
    |bytes: &[u8]| (TARGET.get_or_init(choose).run)(bytes)
);
