//! Every target over what is kept, then over a million mutations, with a bound on memory. `FUZZ_EXECUTIONS` sets
//! another number. A failing input is written to `found/TARGET/`: keep it there once the defect is mended.
#![allow(unsafe_code, reason = "an allocator that counts")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use fuzzing::{Target, plain, target};
use xxhash_rust::xxh3::xxh3_64;

/// Counts what a thread has allocated and not yet given back, and the most of it.
struct Counting;

thread_local! {
    static HELD: Cell<(i64, i64)> = const { Cell::new((0, 0)) };
}

fn count(bytes: i64) {
    // While a thread ends, what it counted with is gone, and nobody asks any more.
    let _ = HELD.try_with(|held| {
        let now = held.get().0 + bytes;
        held.set((now, held.get().1.max(now)));
    });
}

// SAFETY: every call is handed on as it is.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as i64);
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        count(-(layout.size() as i64));
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Bytes that one execution on an input of at most [`fuzzing::mutate::INPUT_BYTES`] may hold at once.
const MEMORY_BYTES: i64 = 16 << 20;

/// Runs one input. An assertion that fails, and memory beyond its bound, tell the input's file.
fn check(target: &Target, input: &[u8], place: &dyn Fn() -> String) {
    let before = HELD.with(|held| {
        let now = held.get().0;
        held.set((now, now));
        now
    });
    let ended = catch_unwind(AssertUnwindSafe(|| (target.run)(input)));
    let most = HELD.with(|held| held.get().1) - before;
    let text = match ended {
        Err(_) => "it failed, see above".to_owned(),
        Ok(()) if most > MEMORY_BYTES => format!("it held {most} bytes"),
        Ok(()) => return,
    };
    panic!("{}: {text}: {}", target.name, place());
}

fn keep(target: &Target, input: &[u8]) -> String {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("found")
        .join(target.name);
    let file = directory.join(format!("{:016x}", xxh3_64(input)));
    let kept = std::fs::create_dir_all(&directory).and_then(|()| std::fs::write(&file, input));
    match kept {
        Ok(()) => file.display().to_string(),
        Err(error) => format!("{input:02x?} ({error})"),
    }
}

fn million(name: &str) {
    let target = target::named(name).expect("a target");
    let executions: u64 = std::env::var("FUZZ_EXECUTIONS")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(1_000_000);
    let mut seeds = (target.seeds)();
    let kept = plain::kept(target).expect("readable");
    for (path, input) in kept {
        check(target, &input, &|| path.display().to_string());
        seeds.push(input);
    }
    for seed in &seeds {
        check(target, seed, &|| keep(target, seed));
    }
    plain::run(seeds, target.name, executions, |input| {
        check(target, input, &|| keep(target, input));
    });
}

macro_rules! targets {
    ($($name:ident),*) => {
        $(#[test] fn $name() { million(stringify!($name)) })*

        #[test]
        fn every_target_has_its_test() {
            let names: Vec<_> = target::TARGETS.iter().map(|target| target.name).collect();
            assert_eq!(names, [$(stringify!($name)),*]);
        }
    };
}

targets!(
    checkpoints,
    commands,
    config,
    entries,
    frames,
    identity,
    messages,
    queries,
    ranges
);
