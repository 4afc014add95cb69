//! The words of a line, as HAProxy cuts them: quotes, escapes, comments, and variables of the environment within double
//! quotes. A line does not go on in the next one there.

/// HAProxy refuses more; here it bounds what a line can cost.
const MOST_WORDS: usize = 64;

/// A line that was read.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Line {
    pub(super) words: Vec<String>,
    /// Variables in it that nobody has set: they count as empty.
    pub(super) unset: Vec<String>,
}

/// `variable` tells what the environment has. What is wrong with the line is a sentence with what would be right.
pub(super) fn read(text: &str, variable: &dyn Fn(&str) -> Option<String>) -> Result<Line, String> {
    let mut reader = Reader { rest: text.chars().peekable(), word: None, line: Line::default(), variable };
    reader.run()?;
    if reader.line.words.iter().any(|word| word.contains(char::REPLACEMENT_CHARACTER)) {
        return Err("is not UTF-8 text outside of comments; save the file as UTF-8".into());
    }
    Ok(reader.line)
}

/// An address with its variables replaced, `$NAME` and `${NAME}`, which HAProxy does there whatever the quotes; and those
/// that nobody has set.
pub(super) fn address(text: &str, variable: &dyn Fn(&str) -> Option<String>) -> (String, Vec<String>) {
    let (mut whole, mut unset) = (String::new(), Vec::new());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        whole += before;
        let (is_braced, name) = after.strip_prefix('{').map_or((false, after), |inner| (true, inner));
        let end = name.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(name.len());
        let (name, after) = name.split_at(end);
        if name.is_empty() {
            whole.push('$');
            rest = &rest[before.len() + 1..];
            continue;
        }
        rest = if is_braced { after.strip_prefix('}').unwrap_or(after) } else { after };
        match variable(name) {
            Some(value) => whole += &value,
            None => unset.push(name.to_owned()),
        }
    }
    (whole + rest, unset)
}

struct Reader<'a> {
    rest: std::iter::Peekable<std::str::Chars<'a>>,
    /// The word being read; an empty one was begun by a quote.
    word: Option<String>,
    line: Line,
    variable: &'a dyn Fn(&str) -> Option<String>,
}

impl Reader<'_> {
    fn run(&mut self) -> Result<(), String> {
        let mut is_quoted = false;
        while let Some(c) = self.rest.next() {
            match c {
                '\0' => return Err("has a NUL byte, so this is no configuration; name a text file".into()),
                '"' => {
                    is_quoted = !is_quoted;
                    self.word.get_or_insert_default();
                }
                '\\' => self.escaped(is_quoted)?,
                '$' if is_quoted => self.expand()?,
                c if is_quoted => self.push(c),
                // Also in the middle of a word.
                '#' => break,
                '\'' => self.strongly_quoted()?,
                ' ' | '\t' | '\r' => self.end_word()?,
                c => self.push(c),
            }
        }
        if is_quoted {
            return Err("has a double quote that is not closed; close it on the same line".into());
        }
        self.end_word()
    }

    fn push(&mut self, c: char) {
        self.word.get_or_insert_default().push(c);
    }

    fn end_word(&mut self) -> Result<(), String> {
        self.line.words.extend(self.word.take());
        if self.line.words.len() > MOST_WORDS {
            return Err(format!("has more than {MOST_WORDS} words, which HAProxy refuses as well; split it"));
        }
        Ok(())
    }

    fn strongly_quoted(&mut self) -> Result<(), String> {
        self.word.get_or_insert_default();
        loop {
            match self.rest.next() {
                Some('\'') => return Ok(()),
                Some('\0') | None => {
                    return Err("has a single quote that is not closed; close it on the same line".into());
                }
                Some(c) => self.push(c),
            }
        }
    }

    /// What a backslash makes of the next character. One that means nothing stays, with its backslash.
    fn escaped(&mut self, is_quoted: bool) -> Result<(), String> {
        let known = match self.rest.peek() {
            Some('n') => '\n',
            Some('r') => '\r',
            Some('t') => '\t',
            Some('x') => {
                self.rest.next();
                let digits: String = self.rest.by_ref().take(2).collect();
                let byte = u8::from_str_radix(&digits, 16).ok().filter(|byte| (1..0x80).contains(byte));
                let byte = byte.filter(|_| digits.len() == 2).ok_or_else(|| {
                    format!("has the escape \\x{digits}; write two hexadecimal digits of an ASCII character")
                })?;
                self.push(char::from(byte));
                return Ok(());
            }
            Some(&c @ (' ' | '\t' | '#' | '\\' | '\'' | '"')) => c,
            Some('$') if is_quoted => '$',
            _ => {
                self.push('\\');
                return Ok(());
            }
        };
        self.rest.next();
        self.push(known);
        Ok(())
    }

    /// `$NAME`, `${NAME}`, `${NAME-what it is otherwise}`, `${NAME[*]}` (which becomes several words).
    fn expand(&mut self) -> Result<(), String> {
        let is_braced = self.rest.next_if_eq(&'{').is_some();
        // HAProxy's own begin with a dot: .FILE and .LINE.
        let mut name: String = self.rest.next_if_eq(&'.').into_iter().collect();
        while let Some(c) = self.rest.next_if(|c| c.is_ascii_alphanumeric() || *c == '_') {
            name.push(c);
        }
        let (mut otherwise, mut is_list) = (None, false);
        if is_braced {
            let mut tail: String = String::new();
            loop {
                match self.rest.next() {
                    Some('}') => break,
                    Some(c) if c != '"' => tail.push(c),
                    _ => {
                        return Err(format!(
                            "has a variable, ${{{name}, whose brace is not closed; close it"
                        ));
                    }
                }
            }
            let rest = tail.strip_prefix("[*]");
            is_list = rest.is_some();
            let rest = rest.unwrap_or(&tail);
            otherwise = rest.strip_prefix('-').map(ToOwned::to_owned);
            if otherwise.is_none() && !rest.is_empty() {
                return Err(format!("has {rest:?} in the variable {name}; write ${{{name}}}"));
            }
        }
        if matches!(name.as_str(), "" | ".") || name.starts_with(|c: char| c.is_ascii_digit()) {
            return Err(
                "has a $ without the name of a variable in double quotes; write \\$ for the sign itself"
                    .into(),
            );
        }
        let value = (self.variable)(&name).or(otherwise).unwrap_or_else(|| {
            self.line.unset.push(name);
            String::new()
        });
        self.word.get_or_insert_default();
        if !is_list {
            value.chars().for_each(|c| self.push(c));
            return Ok(());
        }
        for (index, part) in value.split_whitespace().enumerate() {
            if index > 0 {
                self.end_word()?;
            }
            self.word.get_or_insert_default().push_str(part);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn environment(name: &str) -> Option<String> {
        match name {
            "SRV" => Some("10.0.0.1".into()),
            "LIST" => Some("a  b c".into()),
            "EMPTY" => Some(String::new()),
            _ => None,
        }
    }

    fn words(text: &str) -> Vec<String> {
        read(text, &environment).expect(text).words
    }

    #[test]
    fn words_are_cut_as_haproxy_cuts_them() {
        let table: &[(&str, &[&str])] = &[
            ("", &[]),
            ("   # all of it", &[]),
            ("\tserver s1  10.0.0.1:80\r", &["server", "s1", "10.0.0.1:80"]),
            ("mode ht#tp", &["mode", "ht"]),
            (r"a\ b \# \\ \' \n", &["a b", "#", "\\", "'", "\n"]),
            (r#"mode h"tt"p "" 'a "b" \ $SRV'"#, &["mode", "http", "", r#"a "b" \ $SRV"#]),
            (r#""a # 'b' \"c\" \$SRV \x41" \q"#, &["a # 'b' \"c\" $SRV A", r"\q"]),
            (r#""$SRV:80" $SRV "${SRV}:81""#, &["10.0.0.1:80", "$SRV", "10.0.0.1:81"]),
            (r#""${NOPE-a b}" "${SRV-x}" "${EMPTY-x}""#, &["a b", "10.0.0.1", ""]),
            (r#"x "${LIST[*]}" y"#, &["x", "a", "b", "c", "y"]),
            (r"HTTP/1.1\r\nHost:\ www", &["HTTP/1.1\r\nHost: www"]),
            (r"mode \", &["mode", r"\"]),
        ];
        for (text, expected) in table {
            assert_eq!(&words(text), expected, "{text:?}");
        }
        assert_eq!(read(r#"a "$NOPE""#, &environment).expect("read").unset, ["NOPE"]);
    }

    #[test]
    fn in_addresses_variables_need_no_quotes() {
        let table = [
            ("10.0.0.1:80", "10.0.0.1:80"),
            ("${SRV}:80", "10.0.0.1:80"),
            ("$SRV:80", "10.0.0.1:80"),
            ("ipv4@${SRV}:${EMPTY}", "ipv4@10.0.0.1:"),
            ("$", "$"),
            ("a$:${", "a$:${"),
        ];
        for (text, expected) in table {
            assert_eq!(address(text, &environment), (expected.into(), vec![]), "{text}");
        }
        assert_eq!(address("$NOPE:80", &environment), (":80".into(), vec!["NOPE".into()]));
    }

    #[test]
    fn what_haproxy_refuses_is_refused() {
        let many = "w ".repeat(MOST_WORDS + 1);
        let table = [
            ("mode \"http", "double quote that is not closed"),
            ("mode 'http", "single quote that is not closed"),
            ("mode \"${SRV\"", "brace is not closed"),
            ("mode \"${SRV/x}\"", "in the variable SRV"),
            ("mode \"$\"", "without the name of a variable"),
            (r"mode \xz1", "two hexadecimal digits"),
            (r"mode \x4", "two hexadecimal digits"),
            ("mode h\0ttp", "NUL"),
            ("mode \u{fffd}", "UTF-8"),
            (&many, "more than 64 words"),
        ];
        for (text, expected) in table {
            let found = read(text, &environment).expect_err(text);
            assert!(found.contains(expected), "{text}: {found}");
        }
        assert!(read("mode http # caf\u{fffd}", &environment).is_ok(), "comments are nobody's business");
    }

    proptest! {
        #[test]
        fn no_line_is_too_much_for_it(line in "[ -~\t\u{fffd}é]{0,80}|[\"'$\\\\#{}xa\\[*\\] -]{0,40}") {
            let _ = read(&line, &environment);
        }
    }
}
