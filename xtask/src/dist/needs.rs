//! Which packages of Debian a program needs: what its libraries are called there, and the oldest C library that has all that
//! it asks for.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::output;

/// As `Depends:` has them.
pub(super) fn of(program: &Path) -> Result<String> {
    depends(&output(Command::new("objdump").arg("-p").arg(program))?)
}

fn depends(headers: &str) -> Result<String> {
    let words = || headers.lines().filter_map(|line| line.split_whitespace().next_back());
    let versions = words().filter_map(|word| word.strip_prefix("GLIBC_").and_then(version));
    let newest = versions.max().context("the program names no version of the C library")?;
    // For the user that the daemon becomes.
    let mut depends = vec![format!("libc6 (>= {}.{})", newest.0, newest.1), "passwd".to_owned()];
    for line in headers.lines() {
        let Some(library) = line.trim().strip_prefix("NEEDED").map(str::trim) else { continue };
        match library.split('.').next() {
            Some("libc" | "libm" | "ld-linux-x86-64" | "ld-linux-aarch64") => {}
            Some("libgcc_s") => depends.push("libgcc-s1".to_owned()),
            _ => bail!("the program needs {library}, and it is not known which package that is in"),
        }
    }
    depends.sort();
    Ok(depends.join(", "))
}

/// A third number is a correction.
fn version(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.split('.').map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADERS: &str = "
Dynamic Section:
  NEEDED               libgcc_s.so.1
  NEEDED               libc.so.6
Version References:
  required from libc.so.6:
    0x09691a75 0x00 03 GLIBC_2.2.5
    0x069691b4 0x00 02 GLIBC_2.34
    0x09691a75 0x00 04 GLIBC_2.9
";

    #[test]
    fn the_newest_symbol_says_which_c_library() {
        assert_eq!(depends(HEADERS).expect("known"), "libc6 (>= 2.34), libgcc-s1, passwd");
    }

    #[test]
    fn a_library_of_an_unknown_package_is_not_forgotten() {
        let more = format!("{HEADERS}  NEEDED               libssl.so.3\n");
        assert!(depends(&more).expect_err("unknown").to_string().contains("libssl.so.3"));
    }
}
