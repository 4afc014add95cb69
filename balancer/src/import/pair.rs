//! One frontend and one backend of a configuration, and the lines that count for them.

use std::cell::Cell;
use std::collections::{HashMap, HashSet};

use super::sections::{Configuration, Directive, Kind, short};

/// For whom a line counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Side {
    Front,
    Back,
    /// Either of them.
    Any,
    Global,
}

/// What is carried over.
#[derive(Debug)]
pub(super) struct Pair<'a> {
    pub(super) configuration: &'a Configuration,
    /// Which sections.
    pub(super) front: usize,
    pub(super) back: usize,
    lines: Vec<Line<'a>>,
    /// Which of them begin with a word: many words are asked for, and there may be many lines.
    by_word: HashMap<&'a str, Vec<usize>>,
}

#[derive(Debug)]
struct Line<'a> {
    directive: &'a Directive,
    is_front: bool,
    is_back: bool,
    is_global: bool,
    /// Somebody has said what becomes of it.
    is_taken: Cell<bool>,
}

impl<'a> Pair<'a> {
    /// The lines of the two, of what they inherit from, and of `global`.
    pub(super) fn new(configuration: &'a Configuration, front: usize, back: usize) -> Self {
        let (fronts, backs) = (configuration.chain(front), configuration.chain(back));
        let mut lines: Vec<Line<'a>> = Vec::new();
        for (index, section) in configuration.sections.iter().enumerate() {
            let (is_front, is_back) = (fronts.contains(&index), backs.contains(&index));
            let is_global = section.kind == Kind::Global;
            if is_front || is_back || is_global {
                lines.extend(section.directives.iter().map(|directive| Line {
                    directive,
                    is_front,
                    is_back,
                    is_global,
                    is_taken: Cell::new(false),
                }));
            }
        }
        let mut by_word: HashMap<&str, Vec<usize>> = HashMap::new();
        for (index, line) in lines.iter().enumerate() {
            let directive: &'a Directive = line.directive;
            by_word.entry(directive.word(0)).or_default().push(index);
        }
        Self { configuration, front, back, lines, by_word }
    }

    /// The lines that begin with these words, in order. On the other side HAProxy ignores such lines; so they are
    /// accounted for as well.
    pub(super) fn all(&self, side: Side, words: &[&str]) -> Vec<&'a Directive> {
        let mut found = Vec::new();
        let first = words.first().and_then(|word| self.by_word.get(word));
        for line in first.into_iter().flatten().map(|&index| &self.lines[index]) {
            let directive = line.directive;
            let is_it = words.len() <= directive.words.len()
                && words.iter().zip(&directive.words).all(|(wanted, word)| wanted == word);
            if !is_it || directive.is_conditional || line.is_global != (side == Side::Global) {
                continue;
            }
            line.is_taken.set(true);
            let counts = match side {
                Side::Front => line.is_front,
                Side::Back => line.is_back,
                Side::Any | Side::Global => true,
            };
            if counts {
                found.push(directive);
            }
        }
        found
    }

    /// The one that counts where a later line takes the place of an earlier one.
    pub(super) fn last(&self, side: Side, words: &[&str]) -> Option<&'a Directive> {
        self.all(side, words).pop()
    }

    /// The same, unless it says `no`.
    pub(super) fn on(&self, side: Side, words: &[&str]) -> Option<&'a Directive> {
        self.last(side, words).filter(|directive| !directive.is_no)
    }

    /// Lines that nobody has asked for, and whether they are of `global`.
    pub(super) fn rest(&self) -> Vec<(&'a Directive, bool)> {
        let rest = self.lines.iter().filter(|line| !line.is_taken.get());
        rest.map(|line| (line.directive, line.is_global)).collect()
    }

    /// All lines, whoever has asked for them.
    pub(super) fn lines(&self) -> impl Iterator<Item = &'a Directive> {
        self.lines.iter().map(|line| line.directive)
    }

    pub(super) fn front_name(&self) -> &'a str {
        &self.configuration.sections[self.front].name
    }

    pub(super) fn back_name(&self) -> &'a str {
        &self.configuration.sections[self.back].name
    }
}

/// Where a frontend's requests go.
#[derive(Debug, Default)]
struct Targets {
    /// The section itself, or its `default_backend`.
    first: Option<usize>,
    /// Those of `use_backend`.
    others: Vec<usize>,
    /// Some names are made at run time.
    is_dynamic: bool,
    /// A name that no section has.
    missing: Option<String>,
}

/// Which frontend and which backend are meant.
///
/// # Errors
/// None, or several: then which there are.
pub(super) fn choose(
    configuration: &Configuration,
    frontend: Option<&str>,
    backend: Option<&str>,
) -> Result<(usize, usize), String> {
    let mut services = services(configuration);
    services.retain(|(front, _)| frontend.is_none_or(|wanted| configuration.sections[*front].name == wanted));
    if let (Some(wanted), true) = (frontend, services.is_empty()) {
        return Err(format!(
            "--frontend {wanted:?} is not there as frontend or listen; {}",
            offered(configuration)
        ));
    }
    let named = |index: usize, wanted: &str| configuration.sections[index].name == wanted;
    let mut found = Vec::new();
    for (front, targets) in &services {
        match backend {
            Some(wanted) => {
                let reached = targets.first.iter().chain(&targets.others).copied();
                let mut reached: Vec<usize> = reached.filter(|&back| named(back, wanted)).collect();
                if reached.is_empty() && targets.is_dynamic && frontend.is_some() {
                    reached.extend(destinations(configuration).get(wanted).copied());
                }
                found.extend(reached.first().map(|&back| (*front, back)));
            }
            None => match (targets.first, targets.others.as_slice()) {
                (Some(back), _) => found.push((*front, back)),
                (None, [back]) => found.push((*front, *back)),
                _ => {}
            },
        }
    }
    match found.as_slice() {
        [one] => Ok(*one),
        [] => {
            let missing =
                services.iter().find_map(|(front, targets)| Some((front, targets.missing.as_ref()?)));
            match (backend, missing) {
                (Some(wanted), _) => Err(format!(
                    "--backend {wanted:?} is nothing that {} leads to; {}",
                    frontend.map_or_else(|| "any frontend".to_owned(), |name| format!("--frontend {name:?}")),
                    offered(configuration)
                )),
                (None, Some((front, missing))) => Err(format!(
                    "{}: the backend {missing:?} is not there; add it or name another one",
                    configuration.at(configuration.sections[*front].place)
                )),
                (None, None) => Err(format!("no frontend leads to servers; {}", offered(configuration))),
            }
        }
        several => {
            let twice =
                several.windows(2).find(|two| named(two[0].0, &configuration.sections[two[1].0].name));
            match twice.filter(|_| frontend.is_some() || backend.is_some()) {
                Some(two) => Err(format!(
                    "{} and {} have the same name; HAProxy refuses that too, rename one of them",
                    configuration.at(configuration.sections[two[0].0].place),
                    configuration.at(configuration.sections[two[1].0].place)
                )),
                None => Err(format!(
                    "there are several services, and one is carried over at a time; {}",
                    offered(configuration)
                )),
            }
        }
    }
}

fn fronts(configuration: &Configuration) -> impl Iterator<Item = usize> {
    let is_front = |kind| matches!(kind, Kind::Listen | Kind::Frontend);
    let sections = configuration.sections.iter().enumerate();
    sections.filter(move |(_, section)| is_front(section.kind)).map(|(index, _)| index)
}

/// Sections that requests can be sent to, by name: the first of each.
fn destinations(configuration: &Configuration) -> HashMap<&str, usize> {
    let mut destinations = HashMap::new();
    for (index, section) in configuration.sections.iter().enumerate() {
        if matches!(section.kind, Kind::Listen | Kind::Backend) {
            destinations.entry(section.name.as_str()).or_insert(index);
        }
    }
    destinations
}

/// What the lines of each section say themselves of where requests go.
fn said(configuration: &Configuration) -> Vec<Vec<&Directive>> {
    let is_it =
        |line: &&Directive| !line.is_conditional && matches!(line.word(0), "use_backend" | "default_backend");
    configuration.sections.iter().map(|section| section.directives.iter().filter(is_it).collect()).collect()
}

/// Of every frontend.
fn services(configuration: &Configuration) -> Vec<(usize, Targets)> {
    let (destinations, said) = (destinations(configuration), said(configuration));
    let of = |front| (front, targets(configuration, front, &destinations, &said));
    fronts(configuration).map(of).collect()
}

fn targets(
    configuration: &Configuration,
    front: usize,
    destinations: &HashMap<&str, usize>,
    said: &[Vec<&Directive>],
) -> Targets {
    let mut targets = Targets::default();
    let own = &configuration.sections[front];
    let has_servers = |words: &str| matches!(words, "server" | "server-template");
    if own.kind == Kind::Listen && own.directives.iter().any(|line| has_servers(line.word(0))) {
        targets.first = Some(front);
    }
    let mut known = HashSet::new();
    for line in configuration.chain(front).into_iter().flat_map(|index| &said[index]) {
        let name = line.word(1);
        match (line.word(0), destinations.get(name).copied()) {
            ("use_backend", _) if name.contains("%[") => targets.is_dynamic = true,
            ("use_backend", Some(back)) if known.insert(back) => targets.others.push(back),
            ("default_backend", Some(back)) if targets.first != Some(front) => targets.first = Some(back),
            ("default_backend", None) => targets.missing = Some(short(name)),
            _ => {}
        }
    }
    targets
}

/// What can be named, as the rest of a sentence.
fn offered(configuration: &Configuration) -> String {
    const MOST: usize = 20;
    let mut offered = Vec::new();
    for (front, targets) in services(configuration) {
        let own = &configuration.sections[front];
        let mut backs: Vec<usize> = targets.first.into_iter().collect();
        backs.extend(targets.others.iter().filter(|&&back| Some(back) != targets.first));
        let name = short(&own.name);
        for back in backs {
            offered.push(if back == front {
                format!("--frontend {name}")
            } else {
                format!("--frontend {name} --backend {}", short(&configuration.sections[back].name))
            });
        }
    }
    if offered.is_empty() {
        return "a listen section with servers is needed, or a frontend with a default_backend".into();
    }
    let more = offered.len().saturating_sub(MOST);
    offered.truncate(MOST);
    let more = if more == 0 { String::new() } else { format!(", and {more} more") };
    format!("write one of: {}{more}", offered.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEVERAL: &str = "defaults\n mode http\nfrontend www\n bind :80\n use_backend api if { path_beg /api }\n \
        default_backend app\nbackend app\n server a 10.0.0.1:80\nbackend api\n server b 10.0.0.2:80\n\
        listen stats\n bind :81\n stats enable\nlisten db\n bind :82\n server d 10.0.0.3:80\n\
        frontend map\n use_backend %[path,map(x)]\n";

    fn chosen(text: &str, frontend: Option<&str>, backend: Option<&str>) -> Result<String, String> {
        let read = Configuration::read(&[("f".into(), text.into())], &|_| None).expect(text);
        choose(&read, frontend, backend).map(|(front, back)| {
            let pair = Pair::new(&read, front, back);
            format!("{} {}", pair.front_name(), pair.back_name())
        })
    }

    #[test]
    fn a_service_is_chosen_by_name_or_is_the_only_one() {
        let table = [
            (SEVERAL, Some("www"), None, "www app"),
            (SEVERAL, Some("www"), Some("api"), "www api"),
            (SEVERAL, None, Some("api"), "www api"),
            (SEVERAL, Some("db"), None, "db db"),
            (SEVERAL, Some("map"), Some("app"), "map app"),
            ("listen stats\n bind :1\nlisten a\n bind :2\n server x 10.0.0.1:1\n", None, None, "a a"),
            ("frontend f\n use_backend b if x\nbackend b\n", None, None, "f b"),
            ("frontend x\n default_backend x\nbackend x\n", None, None, "x x"),
            ("defaults\n default_backend b\nfrontend f\nbackend b\n", None, None, "f b"),
        ];
        for (text, frontend, backend, expected) in table {
            assert_eq!(chosen(text, frontend, backend).as_deref(), Ok(expected), "{frontend:?} {backend:?}");
        }
    }

    #[test]
    fn whoever_has_to_choose_is_told_from_what() {
        let offered =
            "write one of: --frontend www --backend app, --frontend www --backend api, --frontend db";
        let table = [
            (SEVERAL, None, None, "there are several services"),
            (SEVERAL, None, None, offered),
            (SEVERAL, Some("nobody"), None, "--frontend \"nobody\" is not there"),
            (SEVERAL, Some("nobody"), None, offered),
            (SEVERAL, None, Some("db2"), "--backend \"db2\" is nothing that any frontend leads to"),
            (SEVERAL, Some("db"), Some("app"), "is nothing that --frontend \"db\" leads to"),
            ("global\n", None, None, "no frontend leads to servers; a listen section with servers"),
            ("frontend f\n default_backend b\n", None, None, "f:1: the backend \"b\" is not there"),
            (
                "listen a\n server x y\nlisten a\n server x y\n",
                Some("a"),
                None,
                "f:1 and f:3 have the same name",
            ),
        ];
        for (text, frontend, backend, expected) in table {
            let found = chosen(text, frontend, backend).expect_err(expected);
            assert!(found.contains(expected), "{found}");
        }
    }

    #[test]
    fn a_later_line_takes_the_place_of_an_earlier_one_on_its_side() {
        let text = "defaults\n timeout client 1s\n option x\nfrontend f\n timeout client 2s\n default_backend b\n\
                    defaults\n timeout client 3s\n option y\nbackend b\n no option y\n server s 10.0.0.1:1\n";
        let read = Configuration::read(&[("f".into(), text.into())], &|_| None).expect("read");
        let (front, back) = choose(&read, None, None).expect("one");
        let pair = Pair::new(&read, front, back);
        assert_eq!(pair.last(Side::Front, &["timeout", "client"]).map(|line| line.word(2)), Some("2s"));
        assert!(pair.on(Side::Back, &["option", "x"]).is_none());
        assert!(pair.on(Side::Back, &["option", "y"]).is_none());
        let rest: Vec<_> = pair.rest().into_iter().map(|(line, _)| line.word(0)).collect();
        assert_eq!(rest, ["default_backend", "server"]);
    }
}
