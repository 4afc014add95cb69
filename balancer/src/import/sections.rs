//! The file as HAProxy's: sections, their lines, and whom each inherits from.

use std::cell::Cell;
use std::collections::HashMap;

use super::lexer;
use crate::log::plain;

/// Where something stands.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(super) struct Place {
    /// Which of [`Configuration::files`].
    pub(super) file: usize,
    /// From 1.
    pub(super) line: usize,
}

/// A line of a section.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Directive {
    pub(super) place: Place,
    /// Without a `no` or `default` in front.
    pub(super) words: Vec<String>,
    /// `no …` or `default …`: what was said before does not count.
    pub(super) is_no: bool,
    /// Between `.if` and `.endif`.
    pub(super) is_conditional: bool,
    /// Variables in it that nobody has set.
    pub(super) unset: Vec<String>,
}

impl Directive {
    /// The word at `index`; empty where there is none.
    pub(super) fn word(&self, index: usize) -> &str {
        self.words.get(index).map_or("", String::as_str)
    }

    /// What follows the first `count` words.
    pub(super) fn after(&self, count: usize) -> &[String] {
        self.words.get(count..).unwrap_or_default()
    }

    /// The variables that nobody has set, as they are written.
    pub(super) fn unset(&self) -> String {
        self.unset.iter().map(|name| format!("${name}")).collect::<Vec<_>>().join(", ")
    }

    /// As it is shown to people.
    pub(super) fn text(&self) -> String {
        let no = if self.is_no { "no " } else { "" };
        format!("{no}{}", self.words.join(" "))
    }
}

/// What a section is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    Global,
    Defaults,
    Listen,
    Frontend,
    Backend,
    Resolvers,
    /// Something that has no part in balancing, or that nobody knows.
    Other,
}

/// One section.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Section {
    pub(super) kind: Kind,
    /// The word that it begins with.
    pub(super) word: String,
    pub(super) name: String,
    pub(super) place: Place,
    /// The `defaults` it inherits from, always an earlier section.
    pub(super) parent: Option<usize>,
    /// How many it inherits from, one through the other.
    depth: usize,
    pub(super) directives: Vec<Directive>,
}

/// All that was read.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Configuration {
    /// Names of the files, as they were given.
    pub(super) files: Vec<String>,
    pub(super) sections: Vec<Section>,
}

/// Nobody inherits through more of them.
const DEEPEST: usize = 32;

/// Words that begin a section in some version of HAProxy; anything else there belongs to the section before it.
const SECTIONS: &[(&str, Kind)] = &[
    ("global", Kind::Global),
    ("defaults", Kind::Defaults),
    ("listen", Kind::Listen),
    ("frontend", Kind::Frontend),
    ("backend", Kind::Backend),
    ("resolvers", Kind::Resolvers),
    ("peers", Kind::Other),
    ("mailers", Kind::Other),
    ("userlist", Kind::Other),
    ("cache", Kind::Other),
    ("program", Kind::Other),
    ("http-errors", Kind::Other),
    ("ring", Kind::Other),
    ("log-forward", Kind::Other),
    ("log-profile", Kind::Other),
    ("fcgi-app", Kind::Other),
    ("crt-store", Kind::Other),
    ("crt-list", Kind::Other),
    ("traces", Kind::Other),
    ("acme", Kind::Other),
];

/// Lines that have an address, and which word it is.
const ADDRESSES: &[(&str, usize)] = &[("bind", 1), ("server", 2), ("server-template", 3), ("nameserver", 2)];

impl Configuration {
    /// Reads files in their order, as HAProxy does with several `-f`.
    ///
    /// # Errors
    /// What HAProxy would not understand either: file, line and what is wrong.
    pub(super) fn read(
        files: &[(String, Vec<u8>)],
        environment: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, String> {
        let mut reader = Reader {
            read: Self::default(),
            environment,
            said: HashMap::new(),
            defaults: None,
            named: HashMap::new(),
            depth: 0,
            left: Some(EXPANDED),
        };
        for (index, (name, bytes)) in files.iter().enumerate() {
            reader.read.files.push(name.clone());
            reader.depth = 0;
            let mut last = 0;
            let text = String::from_utf8_lossy(bytes);
            for (line, text) in (1..).zip(text.trim_start_matches('\u{feff}').lines()) {
                let place = Place { file: index, line };
                reader.line(text, place).map_err(|what| format!("{name}:{line}: {what}"))?;
                last = line;
            }
            if reader.depth > 0 {
                return Err(format!("{name}:{last}: an .if is not ended; write .endif"));
            }
        }
        Ok(reader.read)
    }

    /// `file:line`.
    pub(super) fn at(&self, place: Place) -> String {
        format!("{}:{}", self.files.get(place.file).map_or("", String::as_str), place.line)
    }

    /// All lines that count for a section, those it inherits first.
    pub(super) fn chain(&self, section: usize) -> Vec<usize> {
        let mut chain = vec![section];
        let mut next = self.sections[section].parent;
        // Parents come before their children in the list, so this ends.
        while let Some(parent) = next {
            chain.push(parent);
            next = self.sections[parent].parent;
        }
        chain.reverse();
        chain
    }
}

struct Reader<'a> {
    read: Configuration,
    environment: &'a dyn Fn(&str) -> Option<String>,
    /// What `setenv` and its like have said; `None`: unset.
    said: HashMap<String, Option<String>>,
    /// The `defaults` that hold for sections from here on.
    defaults: Option<usize>,
    /// Those that have a name, and the first two of that name.
    named: HashMap<String, (usize, Option<usize>)>,
    /// How many `.if` are open.
    depth: usize,
    /// Bytes that variables may still come to; `None`: it was too much.
    left: Option<usize>,
}

/// A variable may hold the others twice, and the next one that.
const EXPANDED: usize = 8 * 1024 * 1024;

impl Reader<'_> {
    fn line(&mut self, text: &str, place: Place) -> Result<(), String> {
        let left = Cell::new(self.left);
        let variable = |name: &str| {
            let value = match (name, self.said.get(name)) {
                (".FILE", _) => self.read.files.get(place.file).cloned(),
                (".LINE", _) => Some(place.line.to_string()),
                (_, Some(said)) => said.clone(),
                (_, None) => (self.environment)(name),
            };
            left.set(left.get().and_then(|left| left.checked_sub(value.as_ref().map_or(0, String::len))));
            // What is too much is told of when the line is read.
            value.filter(|_| left.get().is_some())
        };
        let mut line = lexer::read(text, &variable).map_err(|rest| format!("the line {rest}"))?;
        let Some(first) = line.words.first().cloned() else { return Ok(()) };
        match first.as_str() {
            ".if" => self.depth += 1,
            ".endif" if self.depth == 0 => return Err("an .endif without .if; leave it out".into()),
            ".endif" => self.depth -= 1,
            ".else" | ".elif" | ".diag" | ".notice" | ".warning" | ".alert" => {}
            word => {
                let known = SECTIONS.iter().find(|(known, _)| *known == word);
                if let Some(&(_, kind)) = known {
                    if self.depth > 0 {
                        return Err(format!(
                            "a {word} section begins between .if and .endif, and conditions are not evaluated here; \
                             import a copy without .if, .else and .endif that has what holds alone"
                        ));
                    }
                    return self.section(kind, &line.words, place);
                }
                // `default option X` takes back what was said, for which nothing is on by itself.
                let is_no = matches!(word, "no" | "default") && line.words.len() > 1;
                if is_no {
                    line.words.remove(0);
                }
                modernise(&mut line.words);
                let address = ADDRESSES.iter().find(|(word, _)| *word == line.words[0]);
                if let Some(word) = address.and_then(|(_, index)| line.words.get_mut(*index)) {
                    let (whole, unset) = lexer::address(word, &variable);
                    *word = whole;
                    line.unset.extend(unset);
                }
                self.left = left.get();
                if self.left.is_none() {
                    return Err(format!(
                        "what variables stand for comes to more than {EXPANDED} bytes by this line; set them to less"
                    ));
                }
                let is_conditional = self.depth > 0;
                let directive =
                    Directive { place, words: line.words, is_no, is_conditional, unset: line.unset };
                return self.directive(directive);
            }
        }
        Ok(())
    }

    fn section(&mut self, kind: Kind, words: &[String], place: Place) -> Result<(), String> {
        let word = words[0].clone();
        let mut rest = &words[1..];
        let mut name = String::new();
        if let Some((first, others)) = rest.split_first()
            && first != "from"
        {
            name.clone_from(first);
            rest = others;
        }
        let is_proxy = matches!(kind, Kind::Listen | Kind::Frontend | Kind::Backend);
        if is_proxy && name.is_empty() {
            return Err(format!("the {word} section has no name; write {word} NAME"));
        }
        let mut parent = if is_proxy { self.defaults } else { None };
        let mut directives = Vec::new();
        match rest {
            [from, wanted] if from == "from" && (is_proxy || kind == Kind::Defaults) => {
                parent = Some(self.named_defaults(wanted)?);
            }
            // Of old an address could stand here.
            [_, ..] if matches!(kind, Kind::Listen | Kind::Frontend) && rest[0] != "from" => {
                let words = std::iter::once("bind".to_owned()).chain(rest.iter().cloned()).collect();
                directives.push(Directive {
                    place,
                    words,
                    is_no: false,
                    is_conditional: false,
                    unset: vec![],
                });
            }
            [from, ..] if from == "from" => {
                return Err(format!(
                    "the {word} section says from and not whom; write {word} NAME from NAME"
                ));
            }
            _ => {}
        }
        let depth = parent.map_or(0, |parent| self.read.sections[parent].depth + 1);
        if depth > DEEPEST {
            return Err(format!(
                "it inherits through {depth} sections, and {DEEPEST} are the most; join some"
            ));
        }
        if kind == Kind::Defaults {
            let index = self.read.sections.len();
            self.defaults = Some(index);
            let known = self.named.entry(name.clone()).or_insert((index, None));
            if known.0 != index {
                known.1.get_or_insert(index);
            }
        }
        self.read.sections.push(Section { kind, word, name, place, parent, depth, directives });
        Ok(())
    }

    /// Only what stands before can be named, so nobody inherits from himself.
    fn named_defaults(&self, wanted: &str) -> Result<usize, String> {
        match self.named.get(wanted) {
            Some(&(index, None)) => Ok(index),
            None => Err(format!(
                "it inherits from the defaults section {:?}, and there is none of that name before it; name one that is",
                short(wanted)
            )),
            Some(&(first, Some(second))) => Err(format!(
                "it inherits from the defaults section {:?}, which is there twice, at {} and {}; give each a name of its \
                 own",
                short(wanted),
                self.read.at(self.read.sections[first].place),
                self.read.at(self.read.sections[second].place)
            )),
        }
    }

    fn directive(&mut self, directive: Directive) -> Result<(), String> {
        let Some(section) = self.read.sections.last_mut() else {
            return Err(format!(
                "{:?} stands before any section; a HAProxy configuration begins with global, defaults, listen, frontend \
                 or backend",
                short(directive.word(0))
            ));
        };
        if section.kind == Kind::Global && !directive.is_conditional {
            let name = directive.word(1).to_owned();
            let value = directive.word(2).to_owned();
            match directive.word(0) {
                "setenv" => {
                    self.said.insert(name, Some(value));
                }
                "presetenv" if (self.environment)(&name).is_none() => {
                    self.said.entry(name).or_insert(Some(value));
                }
                "unsetenv" => {
                    self.said.extend(directive.after(1).iter().map(|name| (name.clone(), None)));
                }
                _ => {}
            }
        }
        section.directives.push(directive);
        Ok(())
    }
}

/// Words of HAProxy 1.2 to 1.4 as they are written since.
fn modernise(words: &mut Vec<String>) {
    let known: &[(&[&str], &[&str])] = &[
        (&["contimeout"], &["timeout", "connect"]),
        (&["clitimeout"], &["timeout", "client"]),
        (&["srvtimeout"], &["timeout", "server"]),
        (&["timeout", "contimeout"], &["timeout", "connect"]),
        (&["timeout", "clitimeout"], &["timeout", "client"]),
        (&["timeout", "srvtimeout"], &["timeout", "server"]),
        (&["redispatch"], &["option", "redispatch"]),
        (&["redisp"], &["option", "redispatch"]),
        (&["option", "forceclose"], &["option", "httpclose"]),
    ];
    let is_it = |(old, _): &&(&[&str], &[&str])| {
        old.len() <= words.len() && old.iter().zip(words.iter()).all(|(old, word)| old == word)
    };
    if let Some((old, new)) = known.iter().find(is_it) {
        words.splice(..old.len(), new.iter().map(ToString::to_string));
    }
}

/// The beginning of what may be a megabyte.
pub(super) fn short(text: &str) -> String {
    const MOST: usize = 120;
    let mut shown: String = text.chars().take(MOST).map(plain).collect();
    if text.chars().nth(MOST).is_some() {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Configuration, String> {
        let environment = |name: &str| (name == "HOME").then(|| "/root".to_owned());
        Configuration::read(&[("f".into(), text.into())], &environment)
    }

    fn lines(read: &Configuration, section: usize) -> Vec<String> {
        let chain = read.chain(section).into_iter();
        chain.flat_map(|index| read.sections[index].directives.iter().map(Directive::text)).collect()
    }

    #[test]
    fn a_section_inherits_from_the_defaults_before_it() {
        let text = "defaults\n mode http\n\ndefaults\n mode tcp\nlisten a\n no option x\n";
        assert_eq!(lines(&read(text).expect("read"), 2), ["mode tcp", "no option x"]);
    }

    #[test]
    fn defaults_are_inherited_by_name() {
        let text = "defaults base\n retries 1\ndefaults web from base\n mode http\ndefaults\n mode tcp\n\
                    frontend a from web\n bind :80\nbackend b\n balance first\n";
        let read = read(text).expect("read");
        assert_eq!(lines(&read, 3), ["retries 1", "mode http", "bind :80"]);
        assert_eq!(lines(&read, 4), ["mode tcp", "balance first"]);
    }

    #[test]
    fn whoever_would_inherit_from_himself_is_refused() {
        for (text, expected) in [
            ("defaults a from a\n", "f:1: it inherits from the defaults section \"a\", and there is none"),
            ("defaults a from b\ndefaults b from a\n", "f:1: it inherits"),
            ("defaults a\ndefaults a\nlisten x from a\n", "there twice, at f:1 and f:2"),
            ("listen\n", "f:1: the listen section has no name"),
            ("listen x from\n", "says from and not whom"),
            ("mode http\n", "f:1: \"mode\" stands before any section"),
            ("global\n.if defined(X)\n daemon\n", "f:3: an .if is not ended"),
            ("global\n.endif\n", "f:2: an .endif without .if"),
            // Whose would the line after it be?
            (
                "listen a\n.if defined(X)\nlisten b\n.endif\n bind :82\n",
                "f:3: a listen section begins between",
            ),
            ("global\n x 'y\n", "f:2: the line has a single quote"),
        ] {
            let found = read(text).expect_err(text);
            assert!(found.starts_with("f:") && found.contains(expected), "{text}: {found}");
        }
    }

    #[test]
    fn variables_may_be_set_by_the_file_itself() {
        let text = "global\n setenv A 1\n presetenv A 2\n presetenv HOME /x\n presetenv B 3\n\
                    defaults\n a \"$A\" \"$HOME\" \"$B\"\nglobal\n unsetenv A\nlisten x\n a \"$A\"\n";
        let read = read(text).expect("read");
        assert_eq!(read.sections[1].directives[0].words, ["a", "1", "/root", "3"]);
        assert_eq!(read.sections[3].directives[0].unset, ["A"]);
    }

    #[test]
    fn variables_of_the_file_itself_and_in_addresses() {
        let read =
            read("listen x\n bind $HOME:80\n server s ${NOPE}:${.LINE}\n a \"${.FILE}:${.LINE}\" $HOME\n");
        let lines = &read.expect("read").sections[0].directives;
        assert_eq!(lines[0].words, ["bind", "/root:80"]);
        assert_eq!((lines[1].word(2), &lines[1].unset[..]), (":${.LINE}", &["NOPE".to_owned()][..]));
        assert_eq!(lines[2].words, ["a", "f:4", "$HOME"]);
    }

    #[test]
    fn variables_that_hold_each_other_come_to_an_end() {
        let lines =
            (0..40).map(|n| format!(" setenv A{} \"${{A{n}}}${{A{n}}}\"\n", n + 1)).collect::<String>();
        let found = read(&format!("global\n setenv A0 xxxxxxxx\n{lines}")).expect_err("too much");
        assert!(found.contains("what variables stand for comes to more than 8388608 bytes"), "{found}");
    }

    #[test]
    fn what_is_conditional_is_marked() {
        let read = read("listen a\n.if defined(X)\n bind :80\n.else\n bind :81\n.endif\n bind :82\n");
        let marks: Vec<bool> = read.expect("read").sections[0]
            .directives
            .iter()
            .map(|directive| directive.is_conditional)
            .collect();
        assert_eq!(marks, [true, true, false]);
    }

    #[test]
    fn old_words_are_known() {
        let read = read("listen a\n contimeout 5000\n redispatch\n timeout clitimeout 1s\n").expect("read");
        assert_eq!(lines(&read, 0), ["timeout connect 5000", "option redispatch", "timeout client 1s"]);
    }

    #[test]
    fn an_address_may_stand_beside_the_name_of_a_section() {
        let read = read("listen web 10.0.0.1:80\n").expect("read");
        assert_eq!(read.sections[0].directives[0].text(), "bind 10.0.0.1:80");
    }
}
