//! `@FILE`: more arguments, in the place of this one, so that a hundred servers fit.

use std::ffi::OsString;
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// A list of a thousand servers is 60 kB.
const LARGEST: u64 = 4 * 1024 * 1024;

/// A word of the command line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Argument {
    pub(super) word: OsString,
    /// `@FILE line N`, if it stands there.
    pub(super) place: Option<String>,
}

impl From<OsString> for Argument {
    fn from(word: OsString) -> Self {
        Self { word, place: None }
    }
}

/// A flag's value in an `@FILE`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Placed {
    /// Without dashes.
    pub(super) flag: String,
    pub(super) value: String,
    /// `@FILE line N`
    pub(super) place: String,
}

/// The values that stand in files.
pub(super) fn placed(args: &[Argument]) -> Vec<Placed> {
    let next = |at: usize| args.get(at + 1).and_then(|next| next.word.to_str());
    let of = |(at, Argument { word, place }): (usize, &Argument)| {
        let (place, word) = (place.as_ref()?, word.to_str()?.strip_prefix("--")?);
        let (flag, value) = word.split_once('=').or_else(|| Some((word, next(at)?)))?;
        Some(Placed { flag: flag.to_owned(), value: value.to_owned(), place: place.clone() })
    };
    args.iter().enumerate().filter_map(of).collect()
}

/// Replaces every `@FILE` by the arguments in it. A value is left alone: `takes_value` tells which flags have one.
pub(super) fn expand(
    args: impl IntoIterator<Item = OsString>,
    takes_value: impl Fn(&str) -> bool,
) -> Result<Vec<Argument>, String> {
    let mut expanded: Vec<Argument> = Vec::new();
    for arg in args {
        let is_value = expanded.last().and_then(|before| before.word.to_str()).is_some_and(&takes_value);
        match arg.to_str().and_then(|text| text.strip_prefix('@')) {
            Some(path) if !is_value => expanded.extend(read(Path::new(path), &takes_value)?),
            _ => expanded.push(arg.into()),
        }
    }
    Ok(expanded)
}

fn read(path: &Path, takes_value: impl Fn(&str) -> bool) -> Result<Vec<Argument>, String> {
    let shown = path.display();
    if path.as_os_str().is_empty() {
        return Err("@ is not followed by a file's name; write @FILE".into());
    }
    let cannot =
        |error| format!("@{shown} cannot be read: {}; name a file of flags", crate::log::reason(&error));
    let mut bytes = Vec::new();
    File::open(path).and_then(|file| file.take(LARGEST + 1).read_to_end(&mut bytes)).map_err(cannot)?;
    if bytes.len() as u64 > LARGEST {
        return Err(format!("@{shown} is larger than 4m; split it"));
    }
    let text =
        String::from_utf8(bytes).map_err(|_| format!("@{shown} is not UTF-8 text; name a file of flags"))?;
    // Editors on other systems put a byte order mark in front.
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let words = words(text).map_err(|(line, what)| format!("@{shown} line {line}: {what}"))?;
    let is_value = |at: usize| at.checked_sub(1).is_some_and(|before| takes_value(&words[before].1));
    let nested = words.iter().enumerate().find(|(at, (_, word))| word.starts_with('@') && !is_value(*at));
    if let Some((_, (line, nested))) = nested {
        return Err(format!(
            "@{shown} line {line}: {nested} inside another file; give it on the command line"
        ));
    }
    let argument = |(line, word): (usize, String)| Argument {
        word: word.into(),
        place: Some(format!("@{shown} line {line}")),
    };
    Ok(words.into_iter().map(argument).collect())
}

/// Splits as a shell does, without expanding anything: quotes, backslash, `#` where a word could begin.
pub(super) fn words(text: &str) -> Result<Vec<(usize, String)>, (usize, &'static str)> {
    const OPEN: &str = "a quote is not closed; close it on the same line";
    let mut words = Vec::new();
    for (number, line) in text.lines().enumerate().map(|(index, line)| (index + 1, line)) {
        let mut word: Option<String> = None;
        let mut rest = line.chars();
        while let Some(c) = rest.next() {
            match c {
                '#' if word.is_none() => break,
                c if c.is_whitespace() => words.extend(word.take().map(|word| (number, word))),
                '\'' => single_quoted(&mut rest, word.get_or_insert_default()).ok_or((number, OPEN))?,
                '"' => double_quoted(&mut rest, word.get_or_insert_default()).ok_or((number, OPEN))?,
                '\\' => match rest.next() {
                    Some(escaped) => word.get_or_insert_default().push(escaped),
                    // A backslash at the end continues a line in a shell; here every line stands for itself anyway.
                    None => break,
                },
                c => word.get_or_insert_default().push(c),
            }
        }
        words.extend(word.map(|word| (number, word)));
    }
    Ok(words)
}

fn single_quoted(rest: &mut std::str::Chars<'_>, word: &mut String) -> Option<()> {
    loop {
        match rest.next()? {
            '\'' => return Some(()),
            c => word.push(c),
        }
    }
}

fn double_quoted(rest: &mut std::str::Chars<'_>, word: &mut String) -> Option<()> {
    loop {
        match rest.next()? {
            '"' => return Some(()),
            '\\' => match rest.next()? {
                escaped @ ('"' | '\\' | '$' | '`') => word.push(escaped),
                other => word.extend(['\\', other]),
            },
            c => word.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_as_a_shell_does_without_expanding() {
        let table: &[(&str, &[&str])] = &[
            ("", &[]),
            ("  \n\n", &[]),
            ("--name x", &["--name", "x"]),
            ("--name x\n--listen 1.2.3.4:80 # the site\n", &["--name", "x", "--listen", "1.2.3.4:80"]),
            ("# all of it\n\t--name=x", &["--name=x"]),
            ("a#b", &["a#b"]),
            ("'a b' \"c d\" e\\ f", &["a b", "c d", "e f"]),
            ("a'b'\"c\"", &["abc"]),
            ("'' x", &["", "x"]),
            ("$HOME * `id`", &["$HOME", "*", "`id`"]),
            (r#""\$x \" \n""#, &[r#"$x " \n"#]),
            ("a \\\nb", &["a", "b"]),
        ];
        for (text, expected) in table {
            let found: Vec<_> = words(text).expect(text).into_iter().map(|(_, word)| word).collect();
            assert_eq!(&found, expected, "{text:?}");
        }
    }

    #[test]
    fn an_open_quote_is_told_with_its_line() {
        for text in ["ok\n'open", "ok\n\"open", "ok\n\"open\\"] {
            assert_eq!(words(text).map_err(|(line, _)| line), Err(2), "{text:?}");
        }
    }

    fn strings(args: &[&str]) -> Vec<OsString> {
        args.iter().map(OsString::from).collect()
    }

    #[test]
    fn stands_where_the_argument_stood_and_leaves_values_alone() {
        let directory = tempfile::tempdir().expect("directory");
        let path = directory.path().join("flags");
        std::fs::write(&path, "--listen b --deny @too").expect("written");
        let at = format!("@{}", path.display());
        let args = strings(&["--listen", "a", &at, "--listen", "c", "--deny", "@kept"]);
        let found = expand(args, |flag| flag.starts_with("--")).expect("read");
        let of_the_file = |flag: &str, value: &str| Placed {
            flag: flag.into(),
            value: value.into(),
            place: format!("{at} line 1"),
        };
        assert_eq!(placed(&found), [of_the_file("listen", "b"), of_the_file("deny", "@too")]);
        assert_eq!(
            found.into_iter().map(|argument| argument.word).collect::<Vec<_>>(),
            strings(&[
                "--listen", "a", "--listen", "b", "--deny", "@too", "--listen", "c", "--deny", "@kept",
            ])
        );
    }

    #[test]
    fn a_file_that_cannot_be_used_is_named() {
        let directory = tempfile::tempdir().expect("directory");
        let path = directory.path().join("flags");
        let refused = |content: &[u8]| {
            std::fs::write(&path, content).expect("written");
            expand(strings(&[&format!("@{}", path.display())]), |_| false).expect_err("refused")
        };
        assert!(refused(b"\xff").contains("not UTF-8"));
        assert!(refused(b"@other").contains("line 1"));
        assert!(refused(b"'").contains(path.to_str().expect("UTF-8")));
        let missing = expand(strings(&["@/nowhere/at/all"]), |_| false).expect_err("refused");
        assert!(missing.starts_with("@/nowhere/at/all cannot be read: no such file"), "{missing}");
    }
}
