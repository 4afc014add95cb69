//! The fuzz targets as ordinary tests: on every file of the corpus, and on inputs near them. `cargo xtask fuzz` looks
//! further.
#![expect(unreachable_pub, reason = "the targets are a library for the fuzzer")]

#[path = "fuzz/targets.rs"]
mod targets;

use std::fs;
use std::path::Path;

use proptest::prelude::*;
use proptest::sample::{Index, select};

/// Bytes that mean something to one of the parsers.
const TELLING: &[u8] = b"\r\n\0\t :;,=\"/*[]@#%0159aAfFxX+-\x0b\x7f\x80\xff";

fn corpus(target: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fuzz/corpus").join(target);
    let files = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut inputs: Vec<_> =
        files.map(|file| fs::read(file.expect("entry").path()).expect("readable")).collect();
    inputs.sort();
    assert!(!inputs.is_empty(), "no corpus for {target}");
    inputs
}

/// An input of the corpus with a few bytes put in, taken out or replaced, or with the tail of another one.
fn near(target: &str) -> impl Strategy<Value = Vec<u8>> {
    let inputs = corpus(target);
    let edit = (any::<Index>(), 0_u8..4, select(TELLING), any::<Index>());
    (select(inputs.clone()), select(inputs), proptest::collection::vec(edit, 0..4)).prop_map(
        |(mut input, other, edits)| {
            for (place, kind, byte, from) in edits {
                let at = place.index(input.len() + 1);
                match kind {
                    0 => input.insert(at, byte),
                    1 if at < input.len() => drop(input.remove(at)),
                    2 if at < input.len() => input[at] = byte,
                    _ => {
                        input.truncate(at);
                        input.extend_from_slice(&other[from.index(other.len() + 1)..]);
                    }
                }
            }
            input
        },
    )
}

macro_rules! target {
    ($target:ident) => {
        mod $target {
            use super::*;

            #[test]
            fn holds_on_the_corpus() {
                corpus(stringify!($target)).iter().for_each(|input| targets::$target(input));
            }

            proptest! {
                #![proptest_config(ProptestConfig::with_cases(2000))]
                #[test]
                fn holds_near_the_corpus(input in near(stringify!($target))) {
                    targets::$target(&input);
                }
            }
        }
    };
}

target!(request_head);
target!(response_head);
target!(chunked);
target!(cookie);
target!(proxy_header);
target!(frame);
target!(flow);
