//! Which frontend and which backend are carried over.

use std::collections::{HashMap, HashSet};

use super::sections::{Configuration, Directive, Kind, Section, short};

/// Where a frontend's requests go.
#[derive(Debug, Default)]
struct Targets {
    /// Where requests go that no condition sends elsewhere.
    first: Option<usize>,
    /// Those of `use_backend` with a condition.
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
                    reached.extend(destination(configuration, wanted));
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
    // Whatever is there can be meant by a frontend that makes names at run time, if there is one of that kind.
    if let (Some(wanted), true) = (backend, found.is_empty()) {
        let mut dynamic = services.iter().filter(|(_, targets)| targets.is_dynamic);
        if let (Some((front, _)), None) = (dynamic.next(), dynamic.next()) {
            found.extend(destination(configuration, wanted).map(|back| (*front, back)));
        }
    }
    match found.as_slice() {
        [one] => unambiguous(configuration, *one),
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
                Some(two) => Err(same_name(configuration, two[0].0, two[1].0)),
                None => Err(format!(
                    "there are several services, and one is carried over at a time; {}",
                    offered(configuration)
                )),
            }
        }
    }
}

/// HAProxy takes no two sections that clients can come to, or requests be sent to, by one name.
fn unambiguous(configuration: &Configuration, chosen: (usize, usize)) -> Result<(usize, usize), String> {
    for (index, kind) in [(chosen.0, Kind::Frontend), (chosen.1, Kind::Backend)] {
        let own = &configuration.sections[index];
        let is_twin = |(other, section): &(usize, &Section)| {
            *other != index
                && matches!(section.kind, Kind::Listen | Kind::Frontend | Kind::Backend)
                && (section.kind == kind || section.kind == Kind::Listen || own.kind == Kind::Listen)
                && section.name == own.name
        };
        if let Some((twin, _)) = configuration.sections.iter().enumerate().find(is_twin) {
            return Err(same_name(configuration, index.min(twin), index.max(twin)));
        }
    }
    Ok(chosen)
}

fn same_name(configuration: &Configuration, one: usize, other: usize) -> String {
    let at = |index: usize| configuration.at(configuration.sections[index].place);
    format!("{} and {} have the same name; HAProxy refuses that too, rename one of them", at(one), at(other))
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

fn destination(configuration: &Configuration, wanted: &str) -> Option<usize> {
    destinations(configuration).get(wanted).copied()
}

/// What the lines of each section say themselves of where requests go, the default last; in `defaults` that is all there
/// can be.
fn said(configuration: &Configuration) -> Vec<Vec<&Directive>> {
    fn of(section: &Section) -> Vec<&Directive> {
        let counts = |line: &&Directive, word: &str| !line.is_conditional && line.word(0) == word;
        let mut said: Vec<&Directive> = Vec::new();
        if section.kind != Kind::Defaults {
            said.extend(section.directives.iter().filter(|line| counts(line, "use_backend")));
        }
        said.extend(section.directives.iter().rev().find(|line| counts(line, "default_backend")));
        said
    }
    configuration.sections.iter().map(of).collect()
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
    let mut always = None;
    for line in configuration.chain(front).into_iter().flat_map(|index| &said[index]) {
        let name = line.word(1);
        let found = destinations.get(name).copied();
        if line.word(0) == "default_backend" {
            (targets.first, targets.missing) =
                (found.or(targets.first), found.is_none().then(|| short(name)));
        } else if always.is_some() {
            // Nobody gets further than a rule without a condition.
        } else if name.contains("%[") {
            targets.is_dynamic = true;
        } else if let Some(back) = found {
            if line.words.len() == 2 {
                always = Some(back);
            } else if known.insert(back) {
                targets.others.push(back);
            }
        }
    }
    if always.is_some() {
        (targets.first, targets.missing) = (always, None);
    }
    targets
}

/// What can be named, as the rest of a sentence.
pub(super) fn offered(configuration: &Configuration) -> String {
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
        if targets.is_dynamic {
            offered.push(format!("--frontend {name} --backend BACKEND, any that it makes a name of"));
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
    use super::super::pair::Pair;
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
            // Servers of its own are nobody's then.
            ("listen a\n default_backend b\n server x y\nbackend b\n", None, None, "a b"),
            ("defaults\n default_backend b\nlisten a\n server x y\nbackend b\n", None, None, "a b"),
            (
                "frontend f\n use_backend b\n use_backend c if x\n default_backend c\nbackend b\nbackend c\n",
                None,
                None,
                "f b",
            ),
            ("frontend f\n use_backend %[x]\nbackend b\nbackend c\n", None, Some("c"), "f c"),
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
            (
                "frontend f\n default_backend b\nbackend b\nbackend b\n",
                None,
                None,
                "f:3 and f:4 have the same",
            ),
            (
                "frontend f\n default_backend b\nbackend b\nlisten b\n",
                None,
                None,
                "f:3 and f:4 have the same",
            ),
            (
                "frontend f\n use_backend %[x]\nfrontend g\n use_backend %[x]\nbackend b\n",
                None,
                Some("b"),
                "--frontend f --backend BACKEND, any that it makes a name of, --frontend g",
            ),
        ];
        for (text, frontend, backend, expected) in table {
            let found = chosen(text, frontend, backend).expect_err(expected);
            assert!(found.contains(expected), "{found}");
        }
    }
}
